/// How dpsgd says that something is wrong: one exception type whose message ends with the place in the source.
///
/// Arguments are checked at the boundary, once, never inside a hot loop:
///   require(rate > 0 && rate <= 1, "the sampling rate must lie in (0, 1]; got ", rate);
#pragma once

#include <charconv>
#include <concepts>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error \
    "dpsgd: do not compile with -ffast-math or -ffinite-math-only: the guard against non-finite gradients would be removed"
#endif

namespace dpsgd {

/// Everything that dpsgd throws. what() is "message [file:line]", the file as seen from include/.
class error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A place in the source. As a last, defaulted argument it names the caller (clang 14 has no std::source_location).
struct source_place {
  const char* file;
  int line;
  static constexpr source_place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

/// A part of a message: text, a character, or a number (nine significant digits). One type for all of them, so that a
/// check costs a user's program next to nothing to compile.
class message_part {
 public:
  template <class T>
  message_part(const T& part) {
    if constexpr (std::same_as<T, char>) kind_ = characters, text_ = {&part, 1};
    else if constexpr (std::floating_point<T>) kind_ = real, real_ = static_cast<double>(part);
    else if constexpr (std::unsigned_integral<T>) kind_ = natural, natural_ = part;
    else if constexpr (std::integral<T>) kind_ = integer, integer_ = part;
    else kind_ = characters, text_ = part;
  }
  void append_to(std::string& all) const {
    char digits[32];
    char* const end = digits + sizeof digits;
    if (kind_ == characters) all += text_;
    else if (kind_ == integer) all.append(digits, std::to_chars(digits, end, integer_).ptr);
    else if (kind_ == natural) all.append(digits, std::to_chars(digits, end, natural_).ptr);
    else all.append(digits, std::to_chars(digits, end, real_, std::chars_format::general, 9).ptr);
  }

 private:
  enum { characters, integer, natural, real } kind_;
  union {
    std::string_view text_;
    long long integer_;
    unsigned long long natural_;
    double real_;
  };
};

namespace detail {
[[gnu::cold]] inline std::string joined(const message_part* parts, std::size_t count) {
  std::string all;
  for (std::size_t i = 0; i < count; ++i) parts[i].append_to(all);
  return all;
}
}  // namespace detail

/// The parts one after the other.
template <class... Parts>
std::string text(const Parts&... parts) {
  const message_part all[] = {parts...};
  return detail::joined(all, sizeof...(parts));
}

/// The first part of a message remembers where it was written, so that `fail("...")` reports its caller.
struct message {
  std::string_view words;
  source_place place;
  template <class Text>
  requires std::convertible_to<const Text&, std::string_view>
  constexpr message(const Text& text, source_place at = source_place::here()) : words(text), place(at) {}
};

namespace detail {
/// "the parts [file:line]", the file as seen from include/.
[[gnu::cold]] inline std::string said_at(source_place place, const message_part* parts, std::size_t count) {
  std::string_view file = place.file;
  if (const auto at = file.rfind("include/dpsgd/"); at != file.npos) file.remove_prefix(at + 8);
  else if (const auto slash = file.rfind('/'); slash != file.npos) file.remove_prefix(slash + 1);
  return text(joined(parts, count), " [", file, ":", place.line, "]");
}
}  // namespace detail

namespace detail {
template <class Error>
[[noreturn, gnu::cold, gnu::noinline]] void throw_at(source_place place, const message_part* parts, std::size_t count) {
  throw Error(said_at(place, parts, count));
}
}  // namespace detail

/// Throws Error with all parts joined, then the place of the call.
template <class Error = error, class... Parts>
[[noreturn, gnu::cold]] void fail(message first, const Parts&... rest) {
  const message_part all[] = {first.words, rest...};
  detail::throw_at<Error>(first.place, all, 1 + sizeof...(rest));
}

/// Checks an argument: throws Error with the joined parts when `holds` is false. Say what was expected, and the remedy.
template <class Error = error, class... Parts>
void require(bool holds, message first, const Parts&... rest) {
  if (!holds) fail<Error>(first, rest...);
}

}  // namespace dpsgd
