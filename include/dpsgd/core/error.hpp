/// How dpsgd says that something is wrong: one exception type whose message ends with the place in the source.
///
/// Arguments are checked at the boundary, once, never inside a hot loop:
///   require(rate > 0 && rate <= 1, "the sampling rate must lie in (0, 1]; got ", rate);
#pragma once

#include <concepts>
#include <sstream>
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

/// The parts one after the other, as operator<< writes them; numbers with nine significant digits.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  out.precision(9);
  (out << ... << parts);
  return out.str();
}

/// The first part of a message remembers where it was written, so that `fail("...")` reports its caller.
struct message {
  std::string_view words;
  source_place place;
  template <class Text>
  requires std::convertible_to<const Text&, std::string_view>
  constexpr message(const Text& text, source_place at = source_place::here()) : words(text), place(at) {}
};

/// Throws Error with all parts joined, then the place of the call.
template <class Error = error, class... Parts>
[[noreturn]] void fail(message first, const Parts&... rest) {
  std::string_view file = first.place.file;
  if (const auto at = file.rfind("include/dpsgd/"); at != file.npos) file.remove_prefix(at + 8);
  else if (const auto slash = file.rfind('/'); slash != file.npos) file.remove_prefix(slash + 1);
  throw Error(text(first.words, rest..., " [", file, ":", first.place.line, "]"));
}

/// Checks an argument: throws Error with the joined parts when `holds` is false. Say what was expected, and the remedy.
template <class Error = error, class... Parts>
void require(bool holds, message first, const Parts&... rest) {
  if (!holds) fail<Error>(first, rest...);
}

}  // namespace dpsgd
