#include "dpsgd/comm/auto_allreduce.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "comm/oracle.hpp"
#include "dpsgd/comm/threads.hpp"

using namespace dpsgd;

static_assert(allreduce_policy<auto_allreduce>);

TEST_CASE("auto picks the same on all ranks, what it measured as fastest, and the sum is right") {
  for (const int p : {1, 2, 3, 5, 8})
    for (const std::size_t n : {0, 1, 1000, 100'000}) {
      INFO(p, " ranks, n = ", n);
      std::vector<allreduce_choice> choices(static_cast<std::size_t>(p));
      std::vector<std::vector<double>> inputs, results(static_cast<std::size_t>(p));
      for (int r = 0; r < p; ++r) inputs.push_back(oracle::values<double>(r, n, true));
      threads::run(p, [&](auto& world) {
        const auto me = static_cast<std::size_t>(world.rank());
        const auto_allreduce chosen(world);
        choices[me] = chosen.template choose<double>(world, n);
        results[me] = inputs[me];
        auto bound = bind<double>(chosen, world, n);
        bound.all_reduce(results[me].data());
      });
      std::vector<double> sum(n, 0.0);
      for (const auto& v : inputs)
        for (std::size_t i = 0; i < n; ++i) sum[i] += v[i];
      for (const auto& r : results) CHECK(r == sum);

      const auto& c = choices[0];
      for (const auto& other : choices) CHECK(other.text() == c.text());  // every figure of it
      CHECK(c.text().starts_with(c.picked.name()));
      CHECK(c.ranks == p);
      CHECK(c.bytes == n * sizeof(double));
      if (p == 1 || n == 0) {
        CHECK(c.candidates.empty());
        continue;
      }
      CHECK((c.network.alpha > 0 && c.network.beta >= 0 && c.network.gamma > 0));
      CHECK(c.tried <= c.bytes);
      CHECK(c.runs >= 1);
      CHECK(c.candidates.front().algorithm.name() == c.picked.name());
      std::size_t run = 0;
      bool native = false;
      double dearest_run = 0, cheapest_left = 1e9;
      for (const auto& one : c.candidates) {
        if (one.algorithm.is_native()) native = true;
        else
          CHECK(one.predicted ==
                doctest::Approx(allreduce::seconds(one.algorithm.derive(p), c.bytes, c.network)).epsilon(1e-12));
        if (one.measured >= 0) {
          ++run;
          CHECK(c.candidates.front().measured <= one.measured);
          dearest_run = std::max(dearest_run, one.predicted);
        } else if (!one.algorithm.is_native()) {
          cheapest_left = std::min(cheapest_left, one.predicted);
        }
      }
      CHECK(native);
      const bool whole = c.tried == c.bytes;  // else the ranks were too slow for it, and native was left out
      CHECK(run == std::min<std::size_t>(4, c.candidates.size()) - (whole ? 0 : 1));
      CHECK(dearest_run <= cheapest_left);
    }
}

TEST_CASE("auto says when it is used on a communicator that it has not measured") {
  single alone;
  const auto_allreduce chosen(alone);
  std::string words;
  try {
    threads::run(2, [&](auto& world) { bind<float>(chosen, world, 10); });
  } catch (const error& e) {
    words = e.what();
  }
  CHECK(words.find("has measured a communicator of 1 ranks; make one of its own for this one, of 2") != words.npos);
}
