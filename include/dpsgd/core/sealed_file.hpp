/// Small binary files that know when they are damaged: a line that says what they are, fields, and a digest of all of
/// it. Checkpoints and saved models. Numbers are little-endian, floats IEEE 754; written durably
/// (core/durable_file.hpp).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "dpsgd/core/digest.hpp"
#include "dpsgd/core/durable_file.hpp"
#include "dpsgd/core/error.hpp"

namespace dpsgd {

static_assert(std::endian::native == std::endian::little,
              "dpsgd: its files are little-endian, and are not converted yet");

/// Collects fields, then writes them in one step.
class sealed_writer {
 public:
  /// `kind` is the file's first line, such as "dpsgd-checkpoint 1".
  explicit sealed_writer(std::string_view kind) : bytes_(std::string(kind) + "\n") {}

  template <class T>
  requires std::is_arithmetic_v<T>
  void put(T value) { bytes_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void put(std::span<const float> values) {
    put(std::uint64_t{values.size()});
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  }
  void put(std::string_view text) {
    put(std::uint64_t{text.size()});
    bytes_.append(text);
  }

  /// Replaces `file` in one step; what was there survives any failure. Throws dpsgd::error.
  void write(const std::filesystem::path& file) const {
    const auto digest = digest_of(bytes_.data(), bytes_.size()).hex();
    durable_file out(file);
    out.write(bytes_);
    out.write(digest);
    out.commit();
  }

 private:
  std::string bytes_;
};

/// Reads such a file back, in the order in which it was put. Every member throws dpsgd::error, naming the file.
class sealed_reader {
 public:
  sealed_reader(const std::filesystem::path& file, std::string_view kind) : file_(file) {
    std::ifstream in(file, std::ios::binary);
    require(static_cast<bool>(in), "cannot open ", file.string());
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
    const std::string head = std::string(kind) + "\n";
    if (!bytes_.starts_with(head)) {
      const auto word = kind.substr(0, kind.find(' ') + 1);
      if (bytes_.starts_with(word))
        fail(file.string(), ": another version of dpsgd wrote this file (wanted '", kind, "')");
      fail(file.string(), ": this is no ", word, "file");
    }
    constexpr std::size_t seal = 32;
    const auto body = bytes_.size() >= head.size() + seal ? bytes_.size() - seal : 0;
    require(body > 0 && digest_of(bytes_.data(), body).hex() == std::string_view(bytes_).substr(body), file.string(),
            ": the file is cut off or damaged; use an older one");
    bytes_.resize(body);
    at_ = head.size();
  }

  template <class T>
  requires std::is_arithmetic_v<T> T get() {
    T value;
    std::memcpy(&value, take(sizeof value), sizeof value);
    return value;
  }
  /// As many floats as `into` has; throws when the file holds another number of them.
  void get(std::span<float> into) {
    const auto count = get<std::uint64_t>();
    require(count == into.size(), file_.string(), ": it holds ", count, " numbers where this model has ", into.size());
    std::memcpy(into.data(), take(into.size_bytes()), into.size_bytes());
  }
  std::string get_text() {
    const auto size = get<std::uint64_t>();
    const char* text = take(size);
    return std::string(text, size);
  }
  bool at_end() const { return at_ == bytes_.size(); }

 private:
  const char* take(std::uint64_t size) {
    require(size <= bytes_.size() - at_, file_.string(), ": a field reaches past the end");
    const char* at = bytes_.data() + at_;
    at_ += size;
    return at;
  }
  std::filesystem::path file_;
  std::string bytes_;
  std::size_t at_ = 0;
};

}  // namespace dpsgd
