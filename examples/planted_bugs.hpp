/// Policies that lie: each claims what the honest one claims and does something else. They show that an audit can fail.
/// (examples/audit.cpp and tests/audit/.) Mistakes that the trainer's types or laws make impossible are not here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "dpsgd/accounting/pld.hpp"
#include "dpsgd/privacy/noise.hpp"
#include "dpsgd/privacy/sampling.hpp"

namespace planted {

/// Half the noise.
struct half_noise : dpsgd::gaussian_noise {
  void draw(const dpsgd::random_stream& words, std::uint32_t block, double sensitivity, float* out) const {
    dpsgd::gaussian_noise::draw(words, block, sensitivity / 2, out);
  }
};

/// The standard deviation is the multiplier, and should be multiplier x bound.
struct noise_not_times_bound : dpsgd::gaussian_noise {
  void draw(const dpsgd::random_stream& words, std::uint32_t block, double, float* out) const {
    dpsgd::gaussian_noise::draw(words, block, 1.0, out);
  }
};

/// The same noise in every step: the difference of two steps has none. (A key that is used again has the same effect.)
struct noise_repeats : dpsgd::gaussian_noise {
  void draw(dpsgd::random_stream words, std::uint32_t block, double sensitivity, float* out) const {
    words.step = 0;
    dpsgd::gaussian_noise::draw(words, block, sensitivity, out);
  }
};

/// The same sample in every step: a generator that is reset.
struct sample_repeats : dpsgd::poisson_sampling {
  template <class Records>
  void draw(dpsgd::random_stream words, const Records& records, std::vector<std::uint32_t>& rows) const {
    words.step = 0;
    dpsgd::poisson_sampling::draw(words, records, rows);
  }
};

/// The rate of a rank's share: batch / (N / P) where batch / N was claimed. P = 8.
struct rate_of_a_share : dpsgd::poisson_sampling {
  template <class Records>
  void draw(const dpsgd::random_stream& words, const Records& records, std::vector<std::uint32_t>& rows) const {
    dpsgd::poisson_sampling{std::min(1.0, 8 * rate)}.draw(words, records, rows);
  }
};

/// Counts one step of sixteen: an accountant that is told of every sixteenth step, or a run that was resumed again and
/// again and began to count anew each time.
struct forgetful_accountant : dpsgd::pld_accountant {
  template <class Event>
  void add(const Event& event, std::uint64_t steps) {
    dpsgd::pld_accountant::add(event, (steps + 15) / 16);
  }
};

}  // namespace planted
