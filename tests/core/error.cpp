#include "dpsgd/core/error.hpp"

#include <doctest/doctest.h>

#include <string>

TEST_CASE("an error names what is wrong and the line that says so") {
  std::string what;
  const int line = __LINE__ + 2;
  try {
    dpsgd::require(false, "the rate must lie in (0, 1]; got ", 1.5, ", not ", 'x');
  } catch (const dpsgd::error& e) {
    what = e.what();
  }
  CHECK(what == "the rate must lie in (0, 1]; got 1.5, not x [error.cpp:" + std::to_string(line) + "]");
  CHECK_NOTHROW(dpsgd::require(true, "fine"));
}
