/// A 128-bit fingerprint of bytes: which file a dataset was read from, so that a privacy ledger finds its data again.
///
/// It guards against mistakes, not against an adversary who makes two files with one digest. It is a function of the
/// bytes alone: blocks of 256 KiB are hashed on their own, by any thread, and the block hashes are hashed in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace dpsgd {

/// 128 bits. hex() is how it is written to files.
struct data_digest {
  std::uint64_t high = 0, low = 0;

  friend bool operator==(const data_digest&, const data_digest&) = default;

  /// 32 hexadecimal digits.
  std::string hex() const {
    std::string out(32, '0');
    for (int i = 0; i < 16; ++i) {
      out[static_cast<std::size_t>(i)] = "0123456789abcdef"[high >> (60 - 4 * i) & 15];
      out[static_cast<std::size_t>(i) + 16] = "0123456789abcdef"[low >> (60 - 4 * i) & 15];
    }
    return out;
  }
};

namespace detail {

inline constexpr std::size_t digest_block = std::size_t{1} << 18;  // bytes

/// Both halves of the 64 x 64 -> 128 bit product, xored: each bit of the result depends on nearly all of a and b.
inline std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
  __extension__ using uint128 = unsigned __int128;
  const auto wide = static_cast<uint128>(a) * b;
  return static_cast<std::uint64_t>(wide) ^ static_cast<std::uint64_t>(wide >> 64);
}

/// The hash of at most one block: four chains of products, so that the multiplier never waits. About 20 GB/s.
inline data_digest digest_of_block(const void* data, std::size_t size) {
  constexpr std::uint64_t odd[4] = {0x9e3779b97f4a7c15u, 0xbf58476d1ce4e5b9u, 0x94d049bb133111ebu, 0xd6e8feb86659fd93u};
  std::uint64_t chain[4] = {odd[3] ^ size, odd[2], odd[1], odd[0]};
  const auto absorb = [&](const unsigned char* bytes) {
    std::uint64_t words[8];
    std::memcpy(words, bytes, sizeof words);
    for (int i = 0; i < 4; ++i) chain[i] = fold(chain[i] ^ words[2 * i], odd[i] ^ words[2 * i + 1]) + chain[i];
  };
  const auto* bytes = static_cast<const unsigned char*>(data);
  const auto* const end = bytes + size;
  for (; end - bytes >= 64; bytes += 64) absorb(bytes);
  unsigned char last[64] = {};  // the rest, padded with zeros; the size is in the first chain
  if (bytes != end) std::memcpy(last, bytes, static_cast<std::size_t>(end - bytes));
  absorb(last);
  const auto a = fold(chain[0] ^ odd[1], chain[1] ^ odd[2]), b = fold(chain[2] ^ odd[3], chain[3] ^ odd[0]);
  return {fold(a ^ odd[0], b ^ odd[1]) + a, fold(b ^ odd[2], a ^ odd[3]) + b};
}

/// The digest of a sequence of blocks from their hashes, in order.
inline data_digest digest_of_blocks(const std::vector<data_digest>& blocks) {
  static_assert(sizeof(data_digest) == 16);
  return digest_of_block(blocks.data(), blocks.size() * sizeof(data_digest));
}

}  // namespace detail

/// The digest of `size` bytes.
inline data_digest digest_of(const void* data, std::size_t size) {
  std::vector<data_digest> blocks;
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (std::size_t at = 0; at < size; at += detail::digest_block)
    blocks.push_back(
        detail::digest_of_block(bytes + at, size - at < detail::digest_block ? size - at : detail::digest_block));
  return detail::digest_of_blocks(blocks);
}

}  // namespace dpsgd
