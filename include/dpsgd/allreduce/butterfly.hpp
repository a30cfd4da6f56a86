/// Butterfly of degree k: a group splits into k parts; each member hands each other part that part's blocks, and goes
/// on within its own.
///
///   k = 3, P = 9, member 0:   0 1 2 | 3 4 5 --> member 3 | 6 7 8 --> member 6     round 0
///                             0 | 1 --> member 1 | 2 --> member 2                 round 1
///
/// Parts need not be equal. The members of a part serve another one in turn, so that where sizes differ one member of
/// the smaller hears from two of the larger; nobody is folded.
///
///   k = 2, P = 3:   0 1 | 2     round 0: 0 and 1 send block 2 to member 2, who sends blocks 0 and 1 to member 0
///                   0 | 1       round 1: 0 and 1 swap
///
/// 2 ceil(log_k P) rounds; for P = k^m 2P(k-1)m messages, otherwise at most 2P(k-1) ceil(log_k P); each member sends
/// n(P-1)/P elements to reduce, the optimum for every P; at P = k^m it receives as many, otherwise at most twice that.
/// k trades rounds for messages: use 2 on one port, more where several messages can leave at a time; k = P is one
/// round each way.
///
/// Source: Zhao, Canny, Butterfly Mixing (2013), SDM; Kylix (2014), ICPP, for its degrees.
#pragma once

#include <algorithm>

#include "dpsgd/allreduce/schedule.hpp"

namespace dpsgd::allreduce {

/// Groups that split into k parts until everybody is alone. A scatter algorithm; member r owns block r.
struct butterfly {
  at_least<2> k = 2;
  constexpr void reduce_scatter(member me, auto&& send) const {
    int first = 0, size = me.size;  // my group: members first .. first + size - 1
    for (int round = 0; size > 1; ++round) {
      const int parts = std::min<int>(k, size), group = first, members = size;
      const auto start = [=](int part) { return group + static_cast<int>(1LL * members * part / parts); };
      int mine = 0;
      while (start(mine + 1) <= me.rank) ++mine;
      first = start(mine), size = start(mine + 1) - first;
      for (int part = 0; part < parts; ++part) {
        const int theirs = start(part + 1) - start(part);
        if (part != mine) send(round, start(part) + (me.rank - first) % theirs, {start(part), theirs});
      }
    }
  }
};
static_assert(scatter_algorithm<butterfly>);
static_assert(prove(butterfly{}, 1) && prove(butterfly{3}, 5) && prove(butterfly{2}, 7));  // more: tests/allreduce

}  // namespace dpsgd::allreduce
