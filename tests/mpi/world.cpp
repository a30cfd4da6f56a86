#include "dpsgd/mpi/world.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <string_view>
#include <vector>

#include "comm/oracle.hpp"
#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/comm/auto_allreduce.hpp"
#include "dpsgd/comm/sparse.hpp"
#include "dpsgd/dpsgd.hpp"
#include "mpi/main.hpp"

using namespace dpsgd;

namespace {

// Every rank runs it with the same arguments; every rank knows all inputs, so that each checks its own result.
template <class T, class Algorithm>
void try_out(const Algorithm& a, std::size_t n, const allreduce::schedule* s) {
  for (const bool whole_numbers : {true, false}) {
    std::vector<std::vector<T>> inputs;
    for (int r = 0; r < world().size(); ++r) inputs.push_back(oracle::values<T>(r, n, whole_numbers));
    std::vector<T> sum(n, T{}), mine = inputs[static_cast<std::size_t>(world().rank())], again = mine;
    for (const auto& v : inputs)
      for (std::size_t i = 0; i < n; ++i) sum[i] = static_cast<T>(sum[i] + v[i]);
    auto bound = bind<T>(a, world(), n);
    bound.reduce(mine.data());
    bound.gather(mine.data());
    bound.all_reduce(again.data());
    if (n > 0) CHECK(std::memcmp(mine.data(), again.data(), n * sizeof(T)) == 0);
    if (whole_numbers) CHECK(mine == sum);
    if (s) {
      oracle::play(s->reduce, s->blocks, inputs);
      oracle::play(s->gather, s->blocks, inputs);
      if (n > 0) CHECK(std::memcmp(mine.data(), inputs[0].data(), n * sizeof(T)) == 0);
    }
    auto first = mine;  // rank 0's: the same bits on all ranks
    broadcast(world(), std::span<T>(first));
    if (n > 0) CHECK(std::memcmp(mine.data(), first.data(), n * sizeof(T)) == 0);
  }
}

}  // namespace

TEST_CASE_TEMPLATE("over MPI every algorithm gives the exact sum, by the schedule's order of addition to the bit", T,
                   float, double, std::int64_t) {
  const int p = world().size();
  const auto around = static_cast<std::size_t>(p);
  for (const auto& e : allreduce::all_algorithms)
    for (const std::size_t n : {std::size_t{0}, std::size_t{1}, around - 1, around, around + 1, std::size_t{127},
                                std::size_t{128}, std::size_t{129}, std::size_t{10007}}) {
      INFO(e.name(), " on ", p, " ranks, n = ", n);
      if (e.is_native()) try_out<T>(e, n, nullptr);
      else {
        const auto s = e.derive(p);
        try_out<T>(e, n, &s);
      }
    }
  for (const std::size_t n : {std::size_t{1}, around + 1, std::size_t{129}}) {
    const auto direct = allreduce::derive(oracle::direct{}, p), mixed = allreduce::derive(oracle::mixed{}, p),
               lopsided = allreduce::derive(oracle::lopsided{}, p);
    try_out<T>(oracle::direct{}, n, &direct);
    try_out<T>(oracle::mixed{}, n, &mixed);
    try_out<T>(oracle::lopsided{}, n, &lopsided);
    try_out<T>(allreduce::native{}, n, nullptr);
  }
}

TEST_CASE("over MPI ranks with different counts, types or algorithms are told on every rank, and can go on") {
  const bool differs = world().rank() == 1;
  const auto words_of = [](auto bind_it) -> std::string {
    try {
      bind_it();
    } catch (const error& e) {
      return e.what();
    }
    return "";
  };
  const auto has = [](const std::string& words, std::string_view part) { return words.find(part) != words.npos; };
  if (world().size() > 1) {
    CHECK(
        has(words_of([&] { bind<float>(allreduce::circulant{}, world(), differs ? 101 : 100); }), "rank 1: count 101"));
    CHECK(has(words_of([&] {
                if (differs) bind<double>(allreduce::circulant{}, world(), 100);
                else bind<std::int64_t>(allreduce::circulant{}, world(), 100);
              }),
              "rank 1: type double"));
    for (const auto* other : {"native", "naive"})
      CHECK(has(words_of([&] { bind<float>(allreduce::from_name(differs ? other : "ring"), world(), 100); }),
                "rank 1: another algorithm"));
  }
  std::vector<float> v(100, 1.0f);
  bind<float>(allreduce::circulant{}, world(), v.size()).all_reduce(v.data());
  CHECK(v == std::vector<float>(100, static_cast<float>(world().size())));
}

TEST_CASE("over MPI the sparse sum has the bits of the dense one, by every scatter algorithm") {
  for (const auto& e : allreduce::all_algorithms)
    for (const std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{10007}}) {
      if (e.is_native() || !e.derive(world().size()).scattered) continue;
      INFO(e.name(), ", n = ", n);
      auto dense = bind<float>(e, world(), n);
      auto sparse = bind_sparse<float>(e, world(), n);
      const auto mine = sparse.mine();
      REQUIRE(mine == dense.mine());
      for (const std::size_t each : {1, 3, 100}) {  // every element, every third, ...
        auto v = oracle::values<float>(world().rank(), n, false);
        std::vector<sparse_entry<float>> entries;
        for (std::size_t i = 0; i < n; ++i)
          if ((i + static_cast<std::size_t>(world().rank())) % each == 0)
            entries.push_back({static_cast<std::uint32_t>(i), v[i]});
          else v[i] = 0;
        dense.reduce(v.data());
        for (auto& x : v) x += 0.0f;  // -0 becomes +0
        const auto shard = sparse.reduce(entries);
        REQUIRE(shard.size() == mine.count);
        if (mine.count > 0) CHECK(std::memcmp(shard.data(), v.data() + mine.first, mine.count * sizeof(float)) == 0);
      }
    }
}

TEST_CASE("between reduce and gather the owners' changes count, native's too") {
  for (const auto& e : allreduce::all_algorithms) {
    INFO(e.name());
    const std::size_t n = 100;
    auto bound = bind<double>(e, world(), n);
    const auto mine = bound.mine();
    std::vector<double> v(n, 1.0);
    bound.reduce(v.data());
    for (std::size_t i = 0; i < n; ++i)
      if (i >= mine.first && i < mine.first + mine.count) v[i] = v[i] * 10 + static_cast<double>(i);
      else v[i] = -1;
    bound.gather(v.data());
    for (std::size_t i = 0; i < n; ++i) CHECK(v[i] == world().size() * 10 + static_cast<double>(i));
    CHECK(sum(world(), static_cast<std::int64_t>(mine.count)) ==
          static_cast<std::int64_t>(bound.scattered() ? n : n * static_cast<std::size_t>(world().size())));
  }
}

// The sums are whole numbers and the noise each coordinate's own: no order of addition and no owner shows.
TEST_CASE("in exact mode parameters have the same bits on MPI's ranks, by every allreduce, as on one alone") {
  constexpr std::size_t n = 300, width = 5;
  random_words words({random_key::from_seed(3), domain::user, 0, 0});
  std::vector<float> x(n * width), y(n);
  for (auto& v : x) v = static_cast<float>(2 * words.uniform() - 1);
  for (std::size_t i = 0; i < n; ++i) y[i] = x[i * width] > 0 ? 1.0f : 0.0f;
  const auto data = dataset::from(x, width, y);
  const fit_options o{.steps = 5, .learning_rate = 0.3, .delta = 1e-5, .insecure_seed = 4};
  mlp alone({width, 20, 1});
  trainer one{flat_clip{0.5}, discrete_gaussian_noise{}, exact_poisson_sampling{0.2}, rdp_accountant{}};
  one.fit(alone, data, o);
  for (const auto& e : allreduce::all_algorithms) {
    if (!e.is_native() && !verify(e.derive(world().size()))) continue;
    INFO(e.name());
    mlp model({width, 20, 1});
    trainer t{world(), flat_clip{0.5}, discrete_gaussian_noise{}, exact_poisson_sampling{0.2}, rdp_accountant{}, e};
    t.fit(model, shard(data, world()), o);
    CHECK(std::equal(alone.parameters().begin(), alone.parameters().end(), model.parameters().begin()));
  }
}

TEST_CASE("auto picks the same on all ranks, and its sum is right") {
  const auto_allreduce chosen(world());
  for (const std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{5000}}) {
    const auto choice = chosen.choose<float>(world(), n);
    const auto name = static_cast<std::uint64_t>(std::hash<std::string_view>{}(choice.picked.name()));
    for (const auto other : gather_all(world(), name)) CHECK(other == name);
    const auto run = choice.tried == choice.bytes ? 4 : 3;  // native is left out where a shorter vector was tried
    for (const auto& c : choice.candidates) CHECK((c.measured >= 0) == (&c < &choice.candidates.front() + run));
    std::vector<float> v(n, 1.0f);
    bind<float>(chosen, world(), n).all_reduce(v.data());
    CHECK(v == std::vector<float>(n, static_cast<float>(world().size())));
  }
}

TEST_CASE("messages of all sizes arrive, zero bytes too") {
  const int size = world().size(), me = world().rank();
  for (const std::size_t bytes : {0, 1, 4096, 3'000'000}) {
    std::vector<std::vector<char>> out, in;
    std::vector<outgoing> sends;
    std::vector<incoming> receives;
    for (int r = 0; r < size; ++r) {
      out.emplace_back(bytes, static_cast<char>(me * 16 + r)), in.emplace_back(bytes, '?');
      if (r != me) sends.push_back({r, out.back().data(), bytes}), receives.push_back({r, in.back().data(), bytes});
    }
    world().exchange(sends, receives);
    for (int r = 0; r < size; ++r)
      if (r != me) CHECK(in[static_cast<std::size_t>(r)] == std::vector<char>(bytes, static_cast<char>(r * 16 + me)));
  }
  const outgoing none{me, nullptr, 0}, nobody{size, nullptr, 0};
  CHECK_THROWS_AS(world().exchange({&none, 1}, {}), error);
  CHECK_THROWS_AS(world().exchange({&nobody, 1}, {}), error);
}

TEST_CASE("the collectives made of exchange") {
  const int size = world().size(), me = world().rank();
  for (int root = 0; root < size; ++root) {
    std::vector<double> v(1000, me);
    broadcast(world(), std::span<double>(v), root);
    CHECK(v == std::vector<double>(1000, root));
  }
  const auto all = gather_all(world(), me * me);
  for (int r = 0; r < size; ++r) CHECK(all.at(static_cast<std::size_t>(r)) == r * r);
  CHECK(sum(world(), std::int64_t{1} << me) == (std::int64_t{1} << size) - 1);
  CHECK(max(world(), 1.5 * me) == 1.5 * (size - 1));
  barrier(world());
}

TEST_CASE("a stop that is asked for does no harm while the others answer") {
  std::atomic<bool> stop{true};
  world().stop_flag(&stop, 5);
  for (int i = 0; i < 100; ++i) barrier(world());
  world().stop_flag(nullptr);
}

TEST_CASE("MPI's errors are thrown in MPI's words") {
  std::string words;
  try {
    int value = 0;
    mpi::check(MPI_Send(&value, 1, MPI_INT, world().size() + 5, 0, world().communicator()), "MPI_Send");
  } catch (const error& e) {
    words = e.what();
  }
  CHECK(words.find("MPI_Send failed: ") == 0);
  CHECK(words.size() > 30);
}
