/// The half of `grade` that is compiled together with a student's header: asks the algorithm for its arrows among 1 ..
/// 64 members and writes them to a file, a line for each step; the rest is grade's. It is short because the compiler
/// reads it anew for every student.
///
///   size 5 BLOCKS FORM                          before the arrows among 5 members; FORM: 1 for reduce_scatter
///   ROUND FROM TO FIRST COUNT THEN              an arrow; THEN: 1 to replace
///   unserved 6                                  serves(6) is false
///   wrong 7 WHY                                 to the end of the line; nothing follows
///   done
#pragma once

#include <cstdio>

#include "dpsgd/allreduce/schedule.hpp"

namespace grade {

namespace ar = dpsgd::allreduce;

constexpr int most_sizes = 64, most_blocks = 10'000, most_sends = 4'096;

struct too_many {
  int rank;
};

/// Writes what `student` says for one size.
template <class Algorithm>
void ask(const Algorithm& student, int size, std::FILE* report) {
  for (int rank = 0; rank < size; ++rank) {
    int sends = 0;
    const auto note = [&](int round, int to, ar::block_range blocks, ar::on_receive then) {
      if (++sends > most_sends) throw too_many{rank};
      std::fprintf(report, "%d %d %d %d %d %d\n", round, rank, to, blocks.first, blocks.count,
                   then == ar::on_receive::replace);
    };
    const ar::member me{rank, size};
    if constexpr (ar::scatter_algorithm<Algorithm>)
      student.reduce_scatter(
          me, [&](int round, int to, ar::block_range blocks) { note(round, to, blocks, ar::on_receive::add); });
    else
      student.all_reduce(me, [&](int round, int to, ar::block_range blocks, ar::on_receive then = ar::on_receive::add) {
        note(round, to, blocks, then);
      });
  }
}

template <class Algorithm>
int write_arrows(const Algorithm& student, const char* report_file) {
  static_assert(ar::algorithm<Algorithm>,
                "grade: this is no allreduce algorithm. It must have exactly one of the member functions "
                "reduce_scatter(member me, auto&& send) const and all_reduce(member me, auto&& send) const");
  if constexpr (ar::algorithm<Algorithm>) {
    std::FILE* report = std::fopen(report_file, "w");
    for (int size = 1; size <= most_sizes; ++size) {
      std::fprintf(report, "size %d ", size);
      std::fflush(report);  // so that it is known where it hangs
      if (!ar::serves(student, size)) {
        std::fprintf(report, "unserved %d\n", size);
        continue;
      }
      const int blocks = ar::blocks_of(student, size);
      std::fprintf(report, "%d %d\n", blocks, ar::scatter_algorithm<Algorithm>);
      if (blocks < 1 || blocks > most_blocks) {
        std::fprintf(report, "wrong %d blocks(%d) is %d; it must lie in 1 .. %d\n", size, size, blocks, most_blocks);
        return std::fclose(report);
      }
      try {
        ask(student, size, report);
      } catch (const too_many& t) {
        std::fprintf(report, "wrong %d member %d calls send more than %d times; does its loop end?\n", size, t.rank,
                     most_sends);
        return std::fclose(report);
      }
    }
    std::fprintf(report, "done\n");
    return std::fclose(report);
  }
  return 1;
}

}  // namespace grade
