/// Discrete normal values, exactly: P(y) is proportional to exp(-y^2 / (2 sigma^2)) for every whole y, by integers and
/// random bits alone. No floating point, so nothing is rounded (Canonne, Kamath and Steinke 2020, algorithms 1 to 3).
///
///   coin(a / b)      compares a / b with a uniform number, of which it draws only the bits that decide
///   exp(-x) coin     k = 1, 2, ... while coins of x / k fall: k ends odd with probability 1 - x + x^2/2! - ... = e^-x
///   y                u + sigma v with probability e^-(u/sigma) e^-v (v falls of a coin of 1/e, u uniform below sigma),
///                    kept with probability exp(-(y - sigma)^2 / (2 sigma^2)), and a sign
///
/// With sigma whole every coin above is made of coins a / b with b <= sigma or b small: coins of x and y that both fall
/// are a coin of x y, so (w / sigma)^2 / 2k is three of them. Products of 32 and 64 bits are all that is computed.
///
/// The number of words that a value takes varies, so each coordinate has a stream of its own (its substream), and its
/// value is a function of (key, use, step, coordinate). The time that it takes varies, too, and is not hidden.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "dpsgd/core/random.hpp"

namespace dpsgd {

/// How many values one block holds: as many as ChaCha blocks are computed side by side.
inline constexpr std::size_t discrete_gaussian_block_size = 16;

namespace detail {

/// The 32-bit words of a stream one after the other: word i is the (i % 16)-th of its block i / 16.
struct narrow_words {
  random_stream stream;
  std::array<std::uint32_t, 16> ready{};
  std::uint32_t used = 0;

  std::uint32_t operator()() {
    if (used % 16 == 0) ready = stream.block(used / 16);
    return ready[used++ % 16];
  }
};

/// The first 32 words of the substreams 16 block ... 16 block + 15 of a stream at once, then each one's further words.
class substream_words {
 public:
  substream_words(const random_stream& stream, std::uint32_t block) : stream_(stream), first_(16 * block) {
    typedef std::uint32_t lanes __attribute__((vector_size(64)));
    for (std::uint32_t b = 0; b < 2; ++b) {
      auto state = stream.state(lanes{} + b);
      for (std::uint32_t l = 0; l < 16; ++l) state[13][l] = (first_ + l) << 8 | static_cast<std::uint32_t>(stream.use);
      chacha20_block(state);
      for (int w = 0; w < 16; ++w) __builtin_memcpy(words_[16 * b + static_cast<std::uint32_t>(w)], &state[w], 64);
    }
  }

  /// The words of one of them.
  struct lane {
    const substream_words& all;
    std::uint32_t number;
    std::uint32_t used = 0;
    narrow_words more{};

    std::uint32_t operator()() {
      if (used < 32) return all.words_[used++][number];
      return further();
    }
    [[gnu::noinline]] std::uint32_t further() {
      if (more.used == 0) {
        more.stream = all.stream_, more.stream.substream = all.first_ + number;
        more.used = 32;
      }
      return more();
    }
  };
  lane operator[](std::uint32_t number) const { return {*this, number}; }

 private:
  alignas(64) std::uint32_t words_[32][16];
  random_stream stream_;
  std::uint32_t first_;
};

/// True with probability numerator / denominator, exactly. numerator <= denominator, 0 < denominator < 2^63.
template <class Words>
bool coin(Words& words, std::uint64_t numerator, std::uint64_t denominator) {
  __extension__ typedef unsigned __int128 uint128;
  for (;;) {
    // The uniform number is (word + rest) / 2^32 with rest in [0, 1). Is (word + rest) denominator < goal?
    const auto low = static_cast<uint128>(words()) * denominator, goal = static_cast<uint128>(numerator) << 32;
    if (low >= goal) return false;
    if (low + denominator <= goal) return true;
    numerator = static_cast<std::uint64_t>(goal - low);  // where rest < numerator / denominator: more bits decide
  }
}

/// True with probability e^-x, 0 <= x <= 1, where fall(k) is true with probability x / k, each time anew.
template <class Fall>
bool exp_coin(Fall fall) {
  std::uint32_t k = 1;
  while (fall(k)) ++k;
  return k % 2 == 1;
}

/// A whole number in [0, n), exactly uniform (Lemire 2019). n > 0.
template <class Words>
std::uint64_t uniform_below(Words& words, std::uint64_t n) {
  __extension__ typedef unsigned __int128 uint128;
  for (;;) {
    const std::uint64_t high = words(), low = words();
    const auto wide = static_cast<uint128>(high << 32 | low) * n;
    const auto rest = static_cast<std::uint64_t>(wide);
    if (rest >= n || rest >= -n % n) return static_cast<std::uint64_t>(wide >> 64);
  }
}

/// One value; see the top of this page. 0 < sigma < 2^62. Values beyond 64 bits would come out modulo 2^64: their
/// probability is below exp(-2^(124) / (2 sigma^2)).
template <class Words>
std::int64_t discrete_gaussian(Words& words, std::uint64_t sigma) {
  const auto unit_over = [&](std::uint64_t k) { return k == 1 || coin(words, 1, k); };
  for (;;) {
    // A magnitude u + sigma v of the discrete Laplace law of scale sigma.
    const std::uint64_t u = uniform_below(words, sigma);
    const auto exp_of_u = [&] {  // e^-(u / sigma)
      return exp_coin([&](std::uint32_t k) { return unit_over(k) && coin(words, u, sigma); });
    };
    if (!exp_of_u()) continue;
    std::uint64_t v = 0;
    while (exp_coin(unit_over)) ++v;
    const bool negative = words() >> 31 != 0;
    if (negative && u == 0 && v == 0) continue;  // zero has one sign

    // Kept with probability exp(-(u + sigma (v - 1))^2 / (2 sigma^2)), the square multiplied out for v > 1.
    const auto exp_of_half_square = [&](std::uint64_t w) {  // e^-(w^2 / (2 sigma^2)), w <= sigma
      return exp_coin([&](std::uint32_t k) {
        return coin(words, 1, 2 * std::uint64_t{k}) && coin(words, w, sigma) && coin(words, w, sigma);
      });
    };
    bool keep = exp_of_half_square(v == 0 ? sigma - u : u);
    for (std::uint64_t i = 1; keep && i < v; ++i) {
      keep = exp_of_u();                                                               // (v - 1) u / sigma
      for (std::uint64_t j = 1; keep && j < v; ++j) keep = exp_of_half_square(sigma);  // (v - 1)^2 / 2
    }
    if (!keep) continue;
    const std::uint64_t magnitude = u + sigma * v;
    return static_cast<std::int64_t>(negative ? -magnitude : magnitude);
  }
}

}  // namespace detail

/// Writes the 16 values of block `block` to out[0..15]: of the coordinates 16 block ... 16 block + 15, which must be
/// below 2^24. 0 < sigma < 2^62. stream.substream is not used.
inline void discrete_gaussian_block(const random_stream& stream, std::uint32_t block, std::uint64_t sigma,
                                    std::int64_t* out) {
  const detail::substream_words random(stream, block);
  for (std::uint32_t l = 0; l < discrete_gaussian_block_size; ++l) {
    auto words = random[l];
    out[l] = detail::discrete_gaussian(words, sigma);
  }
}

/// The same value one at a time, as the reference of the test.
inline std::int64_t discrete_gaussian_value(random_stream stream, std::uint32_t coordinate, std::uint64_t sigma) {
  stream.substream = coordinate;
  detail::narrow_words words{stream};
  return detail::discrete_gaussian(words, sigma);
}

}  // namespace dpsgd
