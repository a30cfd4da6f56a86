/// Sampling policies: which records join a step, and what that does to the step's event.
///
/// A sampling policy is a plain struct with
///   double expected_batch(N) const                     what the sum is divided by; N is the public number of positions
///   void draw(stream, records, rows) const             appends the local numbers of the drawn records, ascending
///   ... amplify(event) const                           the event of the sampled step; absent where it cannot amplify
/// or, where epochs matter,
///   using memory = ...                                 what a rank keeps from step to step, for one set of records
///   void draw(stream, records, rows, memory&) const    stream.step counts from 0 where the key was drawn
/// and, where its numbers may not fit the file,
///   void check(universe) const                         throws dpsgd::error; the trainer asks before anything is spent
/// Law: who is drawn is a function of (stream, position) and of the number of positions in the file: any number of
/// ranks draws the same records, and dropping one moves no other.
///
///   poisson_sampling      each by itself with probability q        poisson_sampled        PLD, RDP
///   exact_poisson_sampling   the same, to the last bit of q        poisson_sampled        PLD, RDP; for exact mode
///   fixed_size_sampling   q N of the N positions                   fixed_size_sampled     RDP
///   shuffling             a fresh permutation, cut into steps      once_per_epoch         PLD, RDP; no amplification
///   balls_in_bins         a fresh die for each, once an epoch      once_per_epoch         PLD, RDP; no amplification
///   cyclic_sampling       one die for each, kept for the run       cyclically_sampled     PLD, RDP; no amplification;
///                                                                                         for correlated noise
///
/// None cuts a batch to a largest size: docs/decisions/no-truncated-batches.md.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <numeric>
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
      std::array<double, 16> gaps;  // so many logarithms at a time fill vectors
      std::size_t used = gaps.size();
      for (std::uint64_t at = c * cell;; ++at) {
        if (used == gaps.size()) {
          for (auto& g : gaps) g = words.uniform();
          for (auto& g : gaps) g = log_exact_bits(g) * scale;
          used = 0;
        }
        const double gap = gaps[used++];
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

/// Each record joins each step by itself with probability `rate`, exactly: position p joins where a uniform number of
/// its own, of which only the bits that decide are drawn, is below the rate. Every rank goes through all positions from
/// its first record to its last, about 1 ns each with AVX-512: more than poisson_sampling where batches are small.
/// What exact mode needs: the claim's arithmetic is exact only where the sampling is.
struct exact_poisson_sampling {
  double rate = 0.01;  // q in (0, 1]

  constexpr double expected_batch(std::uint64_t all) const { return rate * static_cast<double>(all); }
  /// Throws dpsgd::error on an impossible rate, and where the file has more than 2^42 rows.
  void check(std::uint64_t universe) const {
    require(rate > 0 && rate <= 1, "the sampling rate must lie in (0, 1]; got ", rate);
    require(universe <= std::uint64_t{1} << 42, "exact sampling has random streams for 2^42 rows; the file has ",
            universe);
  }

  /// The first 16 bits of position p's number: the half p % 2 of word p / 32 % 16, lane p / 2 % 16 of the 16 ChaCha
  /// blocks p / 512, in substream p / 2^32.
  template <class Records>
  void draw(random_stream stream, const Records& records, std::vector<std::uint32_t>& rows) const {
    rows.clear();
    if (records.records() == 0) return;
    const std::uint64_t first = records.position(0), last = records.position(records.records() - 1);
    const auto below = static_cast<std::uint32_t>(rate * 0x1p16);  // where the rate's first 16 bits end; at most 2^16
    for (std::uint64_t block = first / 512; block <= last / 512; ++block) {
      stream.substream = static_cast<std::uint32_t>(block >> 23);
      const chacha20_lanes bits(stream, static_cast<std::uint32_t>(block & 0x7fffff));
      for (std::uint64_t w = 0; w < 16; ++w) {
        if (!any_up_to(below, bits.words[w])) continue;  // as good as always, where the rate is small
        for (std::uint64_t i = 0; i < 32; ++i) {
          const std::uint32_t number = bits.words[w][i / 2] >> 16 * (i % 2) & 0xffff;
          const std::uint64_t position = 512 * block + 32 * w + i;
          if (number > below || position < first || position > last) continue;
          if (number == below && !further_bits_join(stream, position)) continue;
          if (const auto row = records.locate(position); row >= 0) rows.push_back(static_cast<std::uint32_t>(row));
        }
      }
    }
  }

  template <class Adjacency>
  constexpr poisson_sampled<gaussian_event<Adjacency>> amplify(gaussian_event<Adjacency> event) const {
    return {rate, event};
  }
  template <class Adjacency>
  constexpr poisson_sampled<discrete_gaussian_event<Adjacency>> amplify(
      discrete_gaussian_event<Adjacency> event) const {
    return {rate, event};
  }
  constexpr no_privacy_event amplify(no_privacy_event event) const { return event; }

 private:
  /// Whether one of the 32 halves of 16 words is at most `below`.
  static bool any_up_to(std::uint32_t below, const std::uint32_t* words) {
    typedef std::uint32_t lanes __attribute__((vector_size(64), aligned(4), may_alias));
    const auto v = *reinterpret_cast<const lanes*>(words);
    const auto hits = ((v & 0xffff) <= below) | ((v >> 16) <= below);
    std::uint64_t all[8], any = 0;
    __builtin_memcpy(all, &hits, sizeof all);
    for (const auto a : all) any |= a;
    return any != 0;
  }

  /// Whether a number whose first 16 bits are the rate's is below it: its further bits, 32 at a time, are the words of
  /// the block of this position in a substream of their own. (A rate is a fraction of a power of two: taking bits off
  /// its front is exact, and after at most 1,074 of them nothing is left.)
  [[gnu::cold]] bool further_bits_join(random_stream stream, std::uint64_t position) const {
    stream.substream = 1u << 23 | static_cast<std::uint32_t>(position >> 32) << 3;
    double left = rate * 0x1p16 - std::floor(rate * 0x1p16);
    for (std::uint32_t at = 0; left > 0; ++at) {
      if (at % 16 == 0 && at > 0) ++stream.substream;
      const auto word = stream.block(static_cast<std::uint32_t>(position))[at % 16];
      const double bits = std::floor(left * 0x1p32);
      if (static_cast<double>(word) != bits) return static_cast<double>(word) < bits;
      left = left * 0x1p32 - bits;
    }
    return false;
  }
};
static_assert(sampling_policy<exact_poisson_sampling>);

namespace detail {

/// A set of numbers below 2^64 - 1, for at most `most` of them: open addressing, at least half empty.
class number_set {
 public:
  explicit number_set(std::size_t most) {
    while ((std::size_t{1} << bits_) < 2 * most) ++bits_;
    slots_.assign(std::size_t{1} << bits_, empty);
  }
  /// False when it was there.
  bool insert(std::uint64_t number) {
    const std::size_t last = slots_.size() - 1;
    std::size_t at = static_cast<std::size_t>(number * 0x9e3779b97f4a7c15 >> (64 - bits_));
    for (; slots_[at] != empty; at = (at + 1) & last)
      if (slots_[at] == number) return false;
    slots_[at] = number;
    return true;
  }

 private:
  static constexpr std::uint64_t empty = ~std::uint64_t{0};
  int bits_ = 1;
  std::vector<std::uint64_t> slots_;
};

/// A pseudo-random permutation of [0, n): position -> slot. A Feistel network on an a x b rectangle just larger than n
/// (Black and Rogaway 2002), walked on until it lands below n: about one time in sqrt(n) it has to. Eight rounds of a
/// mixing function under keys from the stream: good to train by, while no claim rests on its randomness.
class permutation {
 public:
  permutation(const random_stream& stream, std::uint64_t n) : n_(n) {
    a_ = std::max(std::uint64_t{1}, static_cast<std::uint64_t>(std::sqrt(static_cast<double>(n))));
    b_ = (n + a_ - 1) / a_;
    random_words words(stream);
    for (auto& k : keys_) k = words();
  }
  /// x < n. About 30 ns.
  std::uint64_t operator()(std::uint64_t x) const {
    do {
      std::uint64_t left = x / b_, right = x % b_;
      for (std::size_t i = 0; i < keys_.size(); i += 2) {
        left = sum(a_, left, below(a_, right ^ keys_[i]));
        right = sum(b_, right, below(b_, left ^ keys_[i + 1]));
      }
      x = left * b_ + right;
    } while (x >= n_);
    return x;
  }

 private:
  /// x + y modulo `range`, both below it. (A remainder would cost ten times as much.)
  static std::uint64_t sum(std::uint64_t range, std::uint64_t x, std::uint64_t y) {
    const std::uint64_t both = x + y;
    return both < range ? both : both - range;
  }
  /// A number in [0, range) from the mixed bits of `v` (the finaliser of SplitMix64, Steele et al. 2014).
  static std::uint64_t below(std::uint64_t range, std::uint64_t v) {
    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9;
    v = (v ^ v >> 27) * 0x94d049bb133111eb;
    __extension__ typedef unsigned __int128 uint128;
    return static_cast<std::uint64_t>(static_cast<uint128>(v ^ v >> 31) * range >> 64);
  }

  std::uint64_t n_, a_, b_;
  std::array<std::uint64_t, 8> keys_;
};

/// Which records of this rank join which step of the epoch at hand. Cost: 4 bytes a record and a step of the epoch.
class epoch_plan {
 public:
  static void check(std::uint64_t epoch, std::uint64_t universe) {
    require(epoch >= 1 && epoch <= universe && epoch < std::uint64_t{1} << 32, "an epoch must have from 1 to ",
            std::min(universe, (std::uint64_t{1} << 32) - 1), " steps, at most one for each row of the file; got ",
            epoch);
  }
  /// The rows of step `stream.step`, counted from where the key was drawn. When an epoch begins, join(stream of the
  /// epoch) gives the function from a position to its step in [0, epoch).
  template <class Records, class Join>
  void rows_of_step(random_stream stream, std::uint64_t epoch, const Records& records, Join&& join,
                    std::vector<std::uint32_t>& rows) {
    check(epoch, records.universe());
    const auto step = static_cast<std::size_t>(stream.step % epoch);
    stream.step /= epoch;
    if (first_.size() != epoch + 1 || stream.step != epoch_ || stream.key.words != key_) {
      epoch_ = stream.step, key_ = stream.key.words;
      auto step_of = join(stream);
      std::vector<std::uint32_t> steps(records.records());
      first_.assign(epoch + 1, 0);
      // Position by position: where rows are missing, to locate one costs less than to ask for the i-th.
      const std::uint64_t end = steps.empty() ? 0 : records.position(steps.size() - 1) + 1;
      for (std::uint64_t p = steps.empty() ? 0 : records.position(0); p < end; ++p)
        if (const auto row = records.locate(p); row >= 0)
          ++first_[(steps[static_cast<std::size_t>(row)] = static_cast<std::uint32_t>(step_of(p))) + 1];
      std::partial_sum(first_.begin(), first_.end(), first_.begin());
      rows_.resize(steps.size());
      auto next = first_;
      for (std::size_t i = 0; i < steps.size(); ++i) rows_[next[steps[i]]++] = static_cast<std::uint32_t>(i);
    }
    rows.assign(rows_.begin() + first_[step], rows_.begin() + first_[step + 1]);
  }

 private:
  std::uint64_t epoch_ = 0;
  std::array<std::uint32_t, 8> key_{};
  std::vector<std::uint32_t> first_, rows_;  // step s has rows_[first_[s] .. first_[s + 1])
};

}  // namespace detail

/// Each step draws floor(rate N) of the file's N positions without replacement, every set of that many alike (Wang,
/// Balle and Kasiviswanathan 2019). Positions of rows that are held out or were dropped are drawn like the others and
/// contribute nothing.
///
/// Hazard: for the same rate and noise it spends far more than Poisson sampling, because the row that joins pushes
/// another one out: at rate 0.01, multiplier 1, 1,000 steps and delta 1e-5 the claim is 20.99, and the truth at least
/// 10.37, where Poisson sampling spends 1.83. It is here for comparison.
///
/// Exactly uniform, by Floyd's algorithm (Bentley and Floyd 1987). Every rank goes through the whole batch, about 40 ns
/// a position, and keeps its own.
struct fixed_size_sampling {
  double rate = 0.01;  // in (0, 1]

  constexpr double expected_batch(std::uint64_t all) const { return rate * static_cast<double>(all); }
  /// How many positions of a file of `universe` rows a step draws.
  constexpr std::uint64_t size_of(std::uint64_t universe) const {
    return std::min(universe, static_cast<std::uint64_t>(rate * static_cast<double>(universe)));
  }
  /// Throws dpsgd::error where the rate is impossible or draws nobody.
  void check(std::uint64_t universe) const {
    require(rate > 0 && rate <= 1 && size_of(universe) > 0, "a fixed-size batch of the share ", rate, " of ", universe,
            " rows is not possible; choose a sampling rate from 1 / rows to 1");
  }

  template <class Records>
  void draw(const random_stream& stream, const Records& records, std::vector<std::uint32_t>& rows) const {
    rows.clear();
    const std::uint64_t all = records.universe();
    check(all);
    const auto size = size_of(all);
    detail::number_set taken(static_cast<std::size_t>(size));
    random_words words(stream);
    for (std::uint64_t last = all - size; last < all; ++last) {
      std::uint64_t position = words.below(last + 1);
      if (!taken.insert(position)) taken.insert(position = last);
      if (const auto row = records.locate(position); row >= 0) rows.push_back(static_cast<std::uint32_t>(row));
    }
    std::sort(rows.begin(), rows.end());
  }

  template <class Adjacency>
  constexpr fixed_size_sampled<gaussian_event<Adjacency>> amplify(gaussian_event<Adjacency> event) const {
    return {rate, event};
  }
  constexpr no_privacy_event amplify(no_privacy_event event) const { return event; }
};
static_assert(sampling_policy<fixed_size_sampling>);

/// A fresh permutation of the file's positions for each epoch, dealt out to the epoch's steps: every row joins exactly
/// one of them, and batches differ by at most one position. What most training without privacy does.
///
/// Hazard: it amplifies nothing that is known to hold for many steps. The claim is that of one unsampled Gaussian an
/// epoch: at multiplier 0.9, ten epochs and delta 1e-7 that is 23.83, where Poisson sampling of 1.2 million rows in
/// batches of 256 spends about 0.33 (Chua et al. 2024 show that shuffling spends more than Poisson sampling). A begun
/// epoch counts whole, and so does the part of one that a resumed run begins. For the same reason the claim holds
/// however badly rows are shuffled.
///
/// Cost: about 50 ns a record of this rank for each epoch.
struct shuffling {
  std::uint64_t epoch = 100;  // steps; from 1 to the number of rows in the file
  using memory = detail::epoch_plan;

  constexpr double expected_batch(std::uint64_t all) const {
    return static_cast<double>(all) / static_cast<double>(epoch);
  }
  /// Throws dpsgd::error where the epoch has no steps, or more than there are rows.
  void check(std::uint64_t universe) const { memory::check(epoch, universe); }

  template <class Records>
  void draw(const random_stream& stream, const Records& records, std::vector<std::uint32_t>& rows, memory& plan) const {
    const auto join = [&](const random_stream& of_epoch) {
      return
          [slot = detail::permutation(of_epoch, records.universe()), this](std::uint64_t p) { return slot(p) % epoch; };
    };
    plan.rows_of_step(stream, epoch, records, join, rows);
  }

  template <class Adjacency>
  constexpr once_per_epoch<gaussian_event<Adjacency>> amplify(gaussian_event<Adjacency> event) const {
    return {static_cast<double>(epoch), event};
  }
  template <class Adjacency>
  constexpr once_per_epoch<discrete_gaussian_event<Adjacency>> amplify(discrete_gaussian_event<Adjacency> event) const {
    return {static_cast<double>(epoch), event};
  }
  constexpr no_privacy_event amplify(no_privacy_event event) const { return event; }
};
static_assert(sampling_policy<shuffling>);

/// In each epoch every row throws a die of its own for the one step that it joins (balls-in-bins: Chua et al. 2025).
/// Batches have random sizes, as in Poisson sampling; a row's step tells nothing of the others'. The event is
/// shuffling's, unamplified: what more it gives is known by Monte Carlo alone, which dpsgd does not have.
///
/// Cost: about 15 ns a record of this rank for each epoch.
struct balls_in_bins {
  std::uint64_t epoch = 100;  // steps; from 1 to the number of rows in the file
  using memory = detail::epoch_plan;

  constexpr double expected_batch(std::uint64_t all) const { return shuffling{epoch}.expected_batch(all); }
  /// Throws dpsgd::error where the epoch has no steps, or more than there are rows.
  void check(std::uint64_t universe) const { memory::check(epoch, universe); }

  template <class Records>
  void draw(const random_stream& stream, const Records& records, std::vector<std::uint32_t>& rows, memory& plan) const {
    // Position p's die: words 2 (p % 128) and the next of lanes p / 128, in substream p / 2^32; to 2^-64 uniform.
    const auto join = [this](random_stream of_epoch) {
      return [=, this, lanes = chacha20_lanes(of_epoch, 0), at = std::uint64_t{0}](std::uint64_t p) mutable {
        if (p / 128 != at) {
          at = p / 128;
          of_epoch.substream = static_cast<std::uint32_t>(p >> 32);
          lanes = chacha20_lanes(of_epoch, static_cast<std::uint32_t>(p) / 128);
        }
        const auto i = 2 * (p % 8), lane = p / 8 % chacha20_lanes::count;
        __extension__ typedef unsigned __int128 uint128;
        const auto word = lanes.words[i][lane] | static_cast<std::uint64_t>(lanes.words[i + 1][lane]) << 32;
        return static_cast<std::uint64_t>(static_cast<uint128>(word) * epoch >> 64);
      };
    };
    plan.rows_of_step(stream, epoch, records, join, rows);
  }

  template <class Adjacency>
  constexpr once_per_epoch<gaussian_event<Adjacency>> amplify(gaussian_event<Adjacency> event) const {
    return shuffling{epoch}.amplify(event);
  }
  template <class Adjacency>
  constexpr once_per_epoch<discrete_gaussian_event<Adjacency>> amplify(discrete_gaussian_event<Adjacency> event) const {
    return shuffling{epoch}.amplify(event);
  }
  constexpr no_privacy_event amplify(no_privacy_event event) const { return event; }
};
static_assert(sampling_policy<balls_in_bins>);

/// Every row throws a die once, for the batch that it is in, and batches take turns: it joins each `batches`-th step of
/// the run and no other. So its steps are known to be `batches` apart, which is what correlated noise is accounted by
/// (privacy/correlated_noise.hpp); a sampling that draws anew in each epoch may show a row in two steps one after the
/// other. With independent noise the event is shuffling's. A resumed run, which has another key, throws anew.
///
/// Cost: about 15 ns a record of this rank, once.
struct cyclic_sampling {
  std::uint64_t batches = 100;  // from 1 to the number of rows in the file
  using memory = detail::epoch_plan;

  constexpr double expected_batch(std::uint64_t all) const { return shuffling{batches}.expected_batch(all); }
  /// Throws dpsgd::error where there are no batches, or more than there are rows.
  void check(std::uint64_t universe) const { memory::check(batches, universe); }

  template <class Records>
  void draw(random_stream stream, const Records& records, std::vector<std::uint32_t>& rows, memory& plan) const {
    check(records.universe());
    stream.step %= batches;  // always the first epoch
    balls_in_bins{batches}.draw(stream, records, rows, plan);
  }

  template <class Adjacency>
  constexpr cyclically_sampled<correlated_gaussian_event<Adjacency>> amplify(
      correlated_gaussian_event<Adjacency> event) const {
    return {static_cast<double>(batches), event};
  }
  template <class Adjacency>
  constexpr once_per_epoch<gaussian_event<Adjacency>> amplify(gaussian_event<Adjacency> event) const {
    return shuffling{batches}.amplify(event);
  }
  template <class Adjacency>
  constexpr once_per_epoch<discrete_gaussian_event<Adjacency>> amplify(discrete_gaussian_event<Adjacency> event) const {
    return shuffling{batches}.amplify(event);
  }
  constexpr no_privacy_event amplify(no_privacy_event event) const { return event; }
};
static_assert(sampling_policy<cyclic_sampling>);

/// A sampling that plans epoch by epoch.
template <class S>
concept epoch_sampling = sampling_policy<S> && requires {
  typename S::memory;
};

}  // namespace dpsgd
