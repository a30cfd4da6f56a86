/// Sampling policies: which records join a step, and what that does to the step's event.
///
/// A sampling policy is a plain struct with
///   double expected_batch(N) const                     what the sum is divided by; N is the public number of positions
///   void draw(stream, records, rows) const             appends the local numbers of the drawn records, ascending
///   ... amplify(event) const                           the event of the sampled step; absent where it cannot amplify
/// Law: who is drawn is a function of (stream, position): any number of ranks draws the same records, and a record
/// joins whatever the others do.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <vector>

#include "dpsgd/accounting/events.hpp"
#include "dpsgd/core/error.hpp"
#include "dpsgd/core/numeric.hpp"
#include "dpsgd/core/random.hpp"

namespace dpsgd {

template <class S>
concept sampling_policy = requires(const S s) {
  { s.expected_batch(std::uint64_t{1}) } -> std::convertible_to<double>;
};

/// Each record joins each step by itself with probability `rate` (Poisson sampling, Abadi et al. 2016).
///
/// The distance from one drawn position to the next is geometric, so the cost grows with the batch and not with N. The
/// positions are cut into fixed cells of about 32 draws, each with a stream of its own, so a rank draws only the cells
/// that touch its records. (Within 2^-53 of `rate`: the gap is floor(ln u / ln(1 - rate)) with 53 random bits in u.)
struct poisson_sampling {
  double rate = 0.01;  // q in (0, 1]

  constexpr double expected_batch(std::uint64_t all) const { return rate * static_cast<double>(all); }

  /// `records` locates positions: universe(), records(), position(i), locate(position) as in dpsgd::dataset.
  template <class Records>
  void draw(random_stream stream, const Records& records, std::vector<std::uint32_t>& rows) const {
    rows.clear();
    if (records.records() == 0) return;
    const std::uint64_t first = records.position(0), last = records.position(records.records() - 1);
    const std::uint64_t cell = cell_size(records.universe());
    const double scale = rate < 1 ? 1.0 / log1m_exact_bits(rate) : 0.0;  // gap = floor(ln u * scale)
    for (std::uint64_t c = first / cell; c <= last / cell; ++c) {
      stream.substream = static_cast<std::uint32_t>(c);
      random_words words(stream);
      const std::uint64_t end = std::min((c + 1) * cell, last + 1);
      for (std::uint64_t at = c * cell;; ++at) {
        const double gap = log_exact_bits(words.uniform()) * scale;
        if (!(gap < static_cast<double>(end - at))) break;
        at += static_cast<std::uint64_t>(gap);
        if (at >= end) break;
        if (const auto row = records.locate(at); row >= 0) rows.push_back(static_cast<std::uint32_t>(row));
      }
    }
  }

  /// A cell: a power of two of positions, at least 32 / rate, and large enough for 24 bits to number the cells.
  constexpr std::uint64_t cell_size(std::uint64_t universe) const {
    std::uint64_t size = 64;
    while (static_cast<double>(size) * rate < 32.0 || universe / size >= 1u << 24) size *= 2;
    return size;
  }

  template <class Adjacency>
  constexpr poisson_sampled<gaussian_event<Adjacency>> amplify(gaussian_event<Adjacency> event) const {
    return {rate, event};
  }
  constexpr no_privacy_event amplify(no_privacy_event event) const { return event; }
};
static_assert(sampling_policy<poisson_sampling>);

}  // namespace dpsgd
