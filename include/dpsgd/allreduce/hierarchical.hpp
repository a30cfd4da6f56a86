/// Hierarchical: one algorithm within each node, another one between the nodes, for networks whose links within a node
/// are much better than those between.
///
///   nodes of 2, P = 6:   (0 1)  (2 3)  (4 5)       inner: reduce-scatter within each node
///                         0------2------4          outer: among those of the same place in their nodes, on what
///                           1------3------5               each owns; then all the way back
///
/// With m members a node and N = floor(P / m) nodes (P < m: one node of P). Members beyond the last whole node first
/// fold their whole vector into that of member rank - m (round 0), and get the result from there in the end.
/// Rounds, messages and elements add up: the inner algorithm's among m with n elements in N nodes, the outer's among N
/// with what its member owns, m times. With optimal scatter algorithms in both places a member sends and receives
/// 2n(m-1)/m elements within its node and 2(n/m)(N-1)/N between nodes: in all the optimum 2n(P-1)/P for P = mN, of
/// which about 1/m leaves the node. A whole algorithm does the same work on all its members: use one inside only where
/// n is small. Use it on clusters with several ranks a node, for all sizes.
///
/// Source: Mikami et al., Massively Distributed SGD: ImageNet/ResNet-50 Training in a Flash (2018), arXiv:1811.05233,
/// with rings in both places.
#pragma once

#include <algorithm>

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// hierarchical{ring{}, circulant{}, 8}: rings within nodes of 8 ranks. Scatter when both are, whole otherwise.
template <algorithm Inner, algorithm Outer>
struct hierarchical {
  Inner inner;
  Outer outer;
  at_least<1> node_size;

  static constexpr bool scatters = scatter_algorithm<Inner> && scatter_algorithm<Outer>;
  constexpr int width(int size) const { return std::min<int>(node_size, size); }
  constexpr bool serves(int size) const {
    return allreduce::serves(inner, width(size)) && allreduce::serves(outer, size / width(size));
  }
  constexpr int blocks(int size) const { return blocks_of(inner, width(size)) * blocks_of(outer, size / width(size)); }
  constexpr void reduce_scatter(member me, auto&& send) const requires scatters { all(me, send); }
  constexpr void all_reduce(member me, auto&& send) const requires(!scatters) { all(me, send); }

 private:
  constexpr void all(member me, auto& send) const {
    const int m = width(me.size), nodes = me.size / m, node = me.rank / m, place = me.rank % m;
    const auto in = derive(inner, m), out = derive(outer, nodes);
    int round = 0;
    const auto say = [&](int t, int to, block_range blocks, on_receive then) {
      if constexpr (scatters) send(round + t, to, blocks);
      else send(round + t, to, blocks, then);
    };
    const auto rounds = [](const auto& arrows) { return arrows.empty() ? 0 : arrows.back().round + 1; };
    // A block of the inner algorithm is as many of ours as the outer one has.
    const auto inside = [&](const std::vector<arrow>& arrows) {
      for (const arrow& a : arrows)
        if (a.from == place)
          say(a.round, node * m + a.to, {a.blocks.first * out.blocks, a.blocks.count * out.blocks}, a.then);
      round += rounds(arrows);
    };
    // The outer algorithm's are shares of what the inner one leaves here; they may wrap round its end.
    const block_range mine = owned(in, place);
    const auto outside = [&](const std::vector<arrow>& arrows) {
      for (const arrow& a : arrows) {
        const int tail = std::min(a.blocks.count, out.blocks - a.blocks.first);
        const auto part = [&](int first, int count) {
          if (count * mine.count > 0)
            say(a.round, a.to * m + place, {mine.first * out.blocks + first * mine.count, count * mine.count}, a.then);
        };
        if (a.from == node) part(a.blocks.first, tail), part(0, a.blocks.count - tail);
      }
      round += rounds(arrows);
    };
    if (me.rank >= nodes * m) return say(0, me.rank - m, {0, in.blocks * out.blocks}, on_receive::add);
    round = 1, inside(in.reduce), outside(out.reduce);
    if constexpr (!scatters) {
      outside(out.gather), inside(in.gather);
      if (node == nodes - 1 && me.rank + m < me.size)
        say(0, me.rank + m, {0, in.blocks * out.blocks}, on_receive::replace);
    }
  }
};
template <algorithm Inner, algorithm Outer>
hierarchical(Inner, Outer, int) -> hierarchical<Inner, Outer>;
// Its proof stands in all.hpp, where there is something to put into it.

}  // namespace dpsgd::allreduce
