/// What a clipping policy guarantees: how far one unit of the data can move the sum that is released.
#pragma once

namespace dpsgd {

/// Two neighbouring data sets give sums at most `value` apart in the L2 norm. `Adjacency` (zero_out, ...) says what
/// neighbouring means; it is part of the type because guarantees under different adjacencies must never be mixed.
/// `value` is in the units of the gradient (a flat clip's is its bound). A noise policy multiplies it.
template <class Adjacency>
struct l2_sensitivity {
  using adjacency = Adjacency;
  double value = 0;
  friend constexpr bool operator==(const l2_sensitivity&, const l2_sensitivity&) = default;
};

/// What no_clip guarantees: nothing. Only no_noise takes it; any other noise would be a false promise.
struct unbounded {
  friend constexpr bool operator==(const unbounded&, const unbounded&) = default;
};

}  // namespace dpsgd
