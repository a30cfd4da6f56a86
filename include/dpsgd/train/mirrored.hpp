/// Values that the host and a backend both see.
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "dpsgd/core/view.hpp"

namespace dpsgd {

/// n values of the host's, as a backend sees them: the same memory where the backend computes on the host, else a copy,
/// which is brought up to date by hand.
template <class Backend, class T>
class mirrored {
  static constexpr bool same = std::same_as<typename Backend::memory, host_memory>;

 public:
  mirrored() = default;
  mirrored(Backend& b, T* host, std::size_t n) : backend_(&b), host_(host) {
    if constexpr (!same) copy_ = b.template make<std::remove_const_t<T>>(n);
  }
  T* data() const {
    if constexpr (same) return host_;
    else return copy_.data();
  }
  void to_backend(std::size_t first, std::size_t n) {
    if constexpr (!same) backend_->upload(host_ + first, n, copy_.data() + first);
  }
  /// The host may read it after the backend's wait().
  void to_host(std::size_t first, std::size_t n) {
    if constexpr (!same) backend_->download(copy_.data() + first, n, host_ + first);
  }

 private:
  Backend* backend_ = nullptr;
  T* host_ = nullptr;
  decltype(std::declval<Backend&>().template make<std::remove_const_t<T>>(
      1)) copy_;  // empty where it is the same memory
};

}  // namespace dpsgd
