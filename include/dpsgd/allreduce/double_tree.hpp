/// Double tree: two binary trees, half the vector through each, in chunks; who is inside one tree is a leaf of the
/// other, so that everybody's links are busy both ways.
///
///   P = 8, the first tree (members in order, the level is the number of trailing zeros), and the second, its mirror:
///
///           4 --> 0                     3 --> 7
///        2     6                     5     1
///       1 3   5 7                   6 4   2 0
///
/// (P odd: the second tree is the first one moved on by one place.) A member sends chunk c of a tree to its parent
/// there in round level + c. At most 2(ceil(log2 P) + chunks - 1) rounds of up to two messages of n / (2 chunks)
/// elements; 4(P-1) chunks messages (fewer for P = 3, where one message serves both trees);
/// each member sends and receives at most 2n elements. Use it for medium and large messages among very many members:
/// few rounds, and full bandwidth whatever P. (One port: Sanders et al. colour the edges so that a member's two
/// messages fall into different rounds.)
///
/// Source: Sanders, Speck, Träff, Two-tree algorithms for full bandwidth broadcast, reduction and scan (2009), Parallel
/// Computing 35; the trees are those of NCCL.
#pragma once

#include <bit>

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// Two pipelined trees. A scatter algorithm of 2 chunks blocks, one half at each root (members 0, and P-1 or 1).
struct double_tree {
  at_least<1> chunks = 8;
  constexpr int blocks(int) const { return 2 * chunks; }
  constexpr void reduce_scatter(member me, auto&& send) const {
    const auto other = [p = me.size](int rank) { return p % 2 == 0 ? p - 1 - rank : rank; };  // mirrored
    const int turn = me.size % 2;                                                             // or moved on by one
    for (int tree = 0; tree < 2; ++tree) {
      const int place = tree == 0 ? me.rank : other(me.at(-turn));
      if (place == 0) continue;  // the root
      const int bit = place & -place, level = std::countr_zero(static_cast<unsigned>(place));
      const int up = ((place ^ bit) | (bit << 1)) < me.size ? (place ^ bit) | (bit << 1) : place ^ bit;
      const int parent = tree == 0 ? up : (other(up) + turn) % me.size;
      for (int c = 0; c < chunks; ++c) send(level + c, parent, tree * chunks + c);
    }
  }
};
static_assert(scatter_algorithm<double_tree>);
static_assert(prove(double_tree{1}, 1) && prove(double_tree{2}, 4) && prove(double_tree{2}, 7));  // more: tests

}  // namespace dpsgd::allreduce
