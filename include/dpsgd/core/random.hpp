/// Random numbers as a function: (key, domain, step, substream, position) -> word, by ChaCha20 (RFC 8439).
///
/// Nothing is ever "the next number of a generator": any rank, on any device, computes the words of any position, so
/// what is drawn depends neither on the number of ranks nor on who draws it.
#pragma once

#include <sys/random.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "dpsgd/core/error.hpp"

namespace dpsgd {

/// What a stream is used for. No two uses share one, so no two uses ever see the same words.
enum class domain : std::uint8_t { noise = 1, sampling, counts, initialisation, split, synthetic, user };

/// The key of all streams of a run: 256 bits. It never touches the disk (see docs/threat-model.md).
struct random_key {
  std::array<std::uint32_t, 8> words{};
  bool secret = false;  // fresh from the operating system, and so fit for noise and sampling

  /// 256 bits from the operating system. Throws dpsgd::error when it has none to give.
  static random_key fresh() {
    random_key key{{}, true};
    auto* bytes = reinterpret_cast<unsigned char*>(key.words.data());
    for (std::size_t have = 0; have < sizeof key.words;) {
      const auto got = ::getrandom(bytes + have, sizeof key.words - have, 0);
      require(got > 0, "the operating system gave no random bytes (getrandom failed)");
      have += static_cast<std::size_t>(got);
    }
    return key;
  }

  /// A key that anybody can guess: for what is public (split, initialisation) and for tests. Never private.
  static constexpr random_key from_seed(std::uint64_t seed) {
    return {{0x64707367u, 0x64736565u, static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32), 0, 0,
             0, 0},
            false};
  }
};

/// The 16 words of a ChaCha20 state -> the 16 words of its block, in place. Word is std::uint32_t, or a vector of them
/// that does as many blocks at once as it has lanes.
template <class Word>
constexpr void chacha20_block(std::array<Word, 16>& state) {
  auto x = state;
  // x[to] = (x[to] ^ x[with]) rotated left. (Vectors by value would change the calling convention with the target.)
  const auto mix = [&x](int to, int with, int by) {
    x[to] ^= x[with];
    x[to] = (x[to] << by) | (x[to] >> (32 - by));
  };
  const auto quarter = [&](int a, int b, int c, int d) {
    x[a] += x[b], mix(d, a, 16);
    x[c] += x[d], mix(b, c, 12);
    x[a] += x[b], mix(d, a, 8);
    x[c] += x[d], mix(b, c, 7);
  };
  for (int round = 0; round < 20; round += 2) {
    quarter(0, 4, 8, 12), quarter(1, 5, 9, 13), quarter(2, 6, 10, 14), quarter(3, 7, 11, 15);
    quarter(0, 5, 10, 15), quarter(1, 6, 11, 12), quarter(2, 7, 8, 13), quarter(3, 4, 9, 14);
  }
  for (int i = 0; i < 16; ++i) state[i] += x[i];
}

/// One stream of words: what a random policy is handed. Trivially copyable; costs nothing until words are asked for.
struct random_stream {
  random_key key;
  domain use = domain::user;
  std::uint64_t step = 0;
  std::uint32_t substream = 0;  // below 2^24: a cell of the sampler, a coordinate of an exact sampler, ...

  /// The ChaCha20 state of block `block`. The nonce is (substream and domain, step).
  template <class Word = std::uint32_t>
  constexpr std::array<Word, 16> state(const Word& block) const {
    std::array<Word, 16> s;
    const Word zero = block ^ block;  // for a vector of words too (nvcc knows no constants of such)
    const std::uint32_t head[4] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};
    for (int i = 0; i < 4; ++i) s[i] = zero + head[i];
    for (int i = 0; i < 8; ++i) s[4 + i] = zero + key.words[i];
    s[12] = block;
    s[13] = zero + (substream << 8 | static_cast<std::uint32_t>(use));
    s[14] = zero + static_cast<std::uint32_t>(step);
    s[15] = zero + static_cast<std::uint32_t>(step >> 32);
    return s;
  }

  /// The 16 words of block `block`, for any block in [0, 2^32).
  constexpr std::array<std::uint32_t, 16> block(std::uint32_t index) const {
    auto s = state(index);
    chacha20_block(s);
    return s;
  }
};

/// 16 blocks of a stream at once, side by side: word w of block 16 * index + l is words[w][l]. Where the target has
/// AVX-512 this costs less than one block by itself.
struct chacha20_lanes {
  static constexpr int count = 16;
  alignas(64) std::uint32_t words[16][count];

  explicit chacha20_lanes(const random_stream& stream, std::uint32_t index) {
    typedef std::uint32_t lanes __attribute__((vector_size(4 * count)));
    lanes block;
    for (int l = 0; l < count; ++l) block[l] = index * count + static_cast<std::uint32_t>(l);
    auto state = stream.state(block);
    chacha20_block(state);
    for (int w = 0; w < 16; ++w) __builtin_memcpy(words[w], &state[w], sizeof state[w]);
  }
};

/// The words of a stream one after the other, for uses that take a varying number of them. Models the standard's
/// UniformRandomBitGenerator, but do not hand it to <random>'s distributions where bits must not depend on the library.
class random_words {
 public:
  using result_type = std::uint64_t;
  explicit random_words(const random_stream& stream) : stream_(stream), ready_(stream, 0) {}

  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return ~result_type{0}; }

  /// 64 random bits.
  result_type operator()() {
    if (used_ == 16 * chacha20_lanes::count) ready_ = chacha20_lanes(stream_, ++index_), used_ = 0;
    const auto low = ready_.words[used_ % 16][used_ / 16], high = ready_.words[used_ % 16 + 1][used_ / 16];
    used_ += 2;
    return low | static_cast<std::uint64_t>(high) << 32;
  }

  /// A double in (0, 1) with 53 random bits: (k + 1/2) 2^-53.
  double uniform() { return (static_cast<double>((*this)() >> 11) + 0.5) * 0x1p-53; }

  /// An integer in [0, n), exactly uniform (Lemire 2019). n > 0.
  std::uint64_t below(std::uint64_t n) {
    __extension__ typedef unsigned __int128 uint128;
    for (const std::uint64_t least = -n % n;;) {
      const auto wide = static_cast<uint128>((*this)()) * n;
      if (static_cast<std::uint64_t>(wide) >= least) return static_cast<std::uint64_t>(wide >> 64);
    }
  }

 private:
  random_stream stream_;
  chacha20_lanes ready_;
  std::uint32_t index_ = 0;
  unsigned used_ = 0;
};

}  // namespace dpsgd
