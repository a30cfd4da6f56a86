/// The version of dpsgd. CMakeLists.txt reads it from here, so that it is written once.
#pragma once

namespace dpsgd {
/// "major.minor.patch".
inline constexpr const char* version = "0.1.0";
}  // namespace dpsgd
