/// A rank is killed (SIGKILL) at random points, again and again. What was released is written down by the noise, as it
/// is drawn, and never asked of the ledger:
///   the ledger never counts less than was released, and over-counts by at most one reservation a crash;
///   what is on the disk can always be resumed, whatever was being written;
///   a seeded run comes to the bits of a run that was not killed;
///   a private run draws a fresh key each time: no (key, step) and no noise is used by two lives.
///
/// Half of the kills come at a random time, to a random rank. The other half come from inside: rank 0 dies before, after
/// or half-way through one of its calls that write ledger or checkpoint, drawn at random. SIGKILL, not a power cut: what
/// was written and not synced stays.
///
/// The seed of the random points is printed; DPSGD_CRASH_SEED repeats it (the points inside exactly, times nearly).
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "crash/processes.hpp"
#include "dpsgd/dpsgd.hpp"
#include "dpsgd/train/journal.hpp"

using namespace dpsgd;
using test::process_world;

namespace {

/// When rank 0 dies by its own hand: at its `at`-th call that writes (1 is the first; 0: never).
enum class moment { before, half_way, after };
struct doom {
  std::uint64_t at = 0;
  moment when = moment::before;
};
bool counts_calls = false;  // in rank 0 of a job alone
doom my_doom;
std::atomic<std::uint64_t>* calls = nullptr;  // that write, so far in this life; shared with the parent

/// Runs one call that writes, with death where it was ordered. `half` does a part of it.
template <class Call, class Half>
auto fatal(Call call, Half half) {
  if (!counts_calls || ++*calls != my_doom.at) return call();
  if (my_doom.when == moment::half_way) half();
  auto result = my_doom.when == moment::after ? call() : decltype(call()){};
  ::kill(::getpid(), SIGKILL);
  return result;
}

}  // namespace

// The linker sends the calls of this program here (see CMakeLists.txt).
extern "C" {
ssize_t __real_write(int, const void*, std::size_t);
int __real_fsync(int);
int __real_fdatasync(int);
int __real_rename(const char*, const char*);
int __real_ftruncate(int, off_t);

ssize_t __wrap_write(int fd, const void* bytes, std::size_t size) {
  return fatal([&] { return __real_write(fd, bytes, size); }, [&] { (void)!__real_write(fd, bytes, size / 2); });
}
int __wrap_fsync(int fd) {
  return fatal([&] { return __real_fsync(fd); }, [] {});
}
int __wrap_fdatasync(int fd) {
  return fatal([&] { return __real_fdatasync(fd); }, [] {});
}
int __wrap_rename(const char* from, const char* to) {
  return fatal([&] { return __real_rename(from, to); }, [] {});
}
int __wrap_ftruncate(int fd, off_t size) {
  return fatal([&] { return __real_ftruncate(fd, size); }, [] {});
}
}

namespace {

/// One line of the witness: this rank, in this life of the run, released block `block` of step `step`.
struct release_seen {
  std::uint64_t life, rank, step, block;
  data_digest key, noise;
};

/// Gaussian noise that writes each draw down before it gives it away.
struct witnessed_noise : gaussian_noise {
  int file = -1;
  std::uint64_t life = 0, rank = 0;

  void draw(const random_stream& words, std::uint32_t block, double sensitivity, float* out) const {
    gaussian_noise::draw(words, block, sensitivity, out);
    const release_seen seen{life,
                            rank,
                            words.step,
                            block,
                            digest_of(words.key.words.data(), sizeof words.key.words),
                            digest_of(out, block_size * sizeof(float))};
    require(__real_write(file, &seen, sizeof seen) == sizeof seen, "the witness cannot write");
  }
};
static_assert(noise_policy<witnessed_noise>);

constexpr std::uint64_t crashes = 100;  // of both test cases together
constexpr std::size_t width = 6, records = 300;
constexpr std::uint64_t steps = 200, checkpoint_every = 23;  // reservations of 10 steps
const std::string digest(32, 'c');

dataset make_data() {
  random_words words({random_key::from_seed(3), domain::user, 0, 0});
  std::vector<float> features(records * width), labels(records);
  for (auto& x : features) x = static_cast<float>(2 * words.uniform() - 1);
  for (std::size_t i = 0; i < records; ++i) labels[i] = features[i * width] > features[i * width + 1] ? 1.0f : 0.0f;
  return dataset::from(features, width, labels);
}

std::string bytes_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// One run and its files: killed and resumed until it is through.
struct training {
  std::filesystem::path place;
  int ranks;
  std::optional<std::uint64_t> seed;
  std::uint64_t life = 0, deaths = 0;

  std::filesystem::path ledger_file() const { return place / "ledger"; }
  std::filesystem::path checkpoint() const { return place / "kept" / "latest.checkpoint"; }
  std::filesystem::path result(int rank) const { return place / ("result." + std::to_string(rank)); }

  /// What each rank does in this life.
  void work(const dataset& data, process_world& world, doom end) const {
    const bool root = world.rank() == 0;
    const int file = ::open((place / "witness").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (root) counts_calls = true, my_doom = end;
    std::optional<ledger> book;
    journal keep;
    if (root) {
      keep.keep_checkpoints(place / "kept", "a crash test", std::filesystem::exists(checkpoint()));
      keep.keep(book.emplace(ledger_file(), digest, data.universe()));
    }
    mlp model({width, 40, 1});  // three blocks of noise
    trainer t{world, flat_clip{0.7}, witnessed_noise{{1.1}, file, life, static_cast<std::uint64_t>(world.rank())},
              poisson_sampling{0.1}, sgd{.momentum = 0.9}};
    const auto report = t.fit(model, shard(data, world),
                              {.steps = steps,
                               .learning_rate = 0.3,
                               .delta = 1e-5,
                               .insecure_seed = seed,
                               .journal = &keep,
                               .checkpoint_every = checkpoint_every});
    counts_calls = false;
    require(report.steps == steps, "it ended too early");
    std::ofstream(result(world.rank()), std::ios::binary)
        .write(reinterpret_cast<const char*>(model.parameters().data()),
               static_cast<std::streamsize>(model.parameters().size() * sizeof(float)));
  }

  std::vector<release_seen> seen() const {
    const auto bytes = bytes_of(place / "witness");
    REQUIRE(bytes.size() % sizeof(release_seen) == 0);
    std::vector<release_seen> all(bytes.size() / sizeof(release_seen));
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(all.data()));
    return all;
  }

  /// Looks at a copy, so that the next life finds the file as the crash left it.
  std::uint64_t counted() const {
    if (!std::filesystem::exists(ledger_file())) return 0;
    const auto copy = place / "copy";
    std::filesystem::copy_file(ledger_file(), copy, std::filesystem::copy_options::overwrite_existing);
    const ledger book(copy, digest, records);
    std::uint64_t sum = 0;
    for (const auto& r : book.runs()) {
      CHECK(std::holds_alternative<no_privacy_event>(r.event) == seed.has_value());
      sum += r.steps;
    }
    return sum;
  }

  /// The laws, on what is there now.
  void check() const {
    const auto all = seen();
    std::set<std::pair<std::uint64_t, std::uint64_t>> released;  // (life, step): each resume releases anew
    for (const auto& s : all) released.insert({s.life, s.step});
    const auto count = counted();
    CHECK_MESSAGE(count >= released.size(), "the ledger counts ", count, " steps where ", released.size(),
                  " were released");
    CHECK_MESSAGE(count <= released.size() + deaths * reservation(0, steps), "the ledger counts ", count,
                  " steps where ", released.size(), " were released");

    using place_of_noise = std::pair<std::uint64_t, std::uint64_t>;                        // (step, block)
    std::map<std::pair<std::string, std::uint64_t>, std::uint64_t> life_of_key;            // (key, step) -> life
    std::map<std::string, std::pair<std::uint64_t, place_of_noise>> user_of_noise;         // -> life, (step, block)
    std::map<place_of_noise, std::string> noise_of;                                        // of a seeded run
    std::set<std::tuple<std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t>> who;  // drawn once
    for (const auto& s : all) {
      CHECK(who.insert({s.life, s.rank, s.step, s.block}).second);
      const place_of_noise at{s.step, s.block};
      if (seed) {
        CHECK_MESSAGE(noise_of.try_emplace(at, s.noise.hex()).first->second == s.noise.hex(), "step ", s.step);
      } else {
        CHECK_MESSAGE(life_of_key.try_emplace({s.key.hex(), s.step}, s.life).first->second == s.life, "step ", s.step,
                      " was released twice under one key");
        CHECK_MESSAGE((user_of_noise.try_emplace(s.noise.hex(), s.life, at).first->second == std::pair{s.life, at}),
                      "the noise of step ", s.step, " was used before");
      }
    }
  }
};

/// A directory that goes away with the test.
struct scratch {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("dpsgd-crash-" + std::to_string(random_key::fresh().words[0]));
  scratch() { std::filesystem::create_directories(path); }
  ~scratch() { std::filesystem::remove_all(path); }
};

/// Kills runs of this kind, one after the other, until `kills` ranks are dead; each run is resumed until it is through.
void crash(int ranks, std::optional<std::uint64_t> seed, std::uint64_t kills) {
  const char* const given = std::getenv("DPSGD_CRASH_SEED");
  const std::uint64_t points = given ? std::strtoull(given, nullptr, 10) : random_key::fresh().words[0];
  INFO("DPSGD_CRASH_SEED=", points);
  random_words draw({random_key::from_seed(points), domain::user, 0, 0});

  const auto data = make_data();
  const scratch dir;
  int number = 0;
  const auto fresh_run = [&] {
    training run{dir.path / std::to_string(number++), ranks, seed};
    std::filesystem::create_directories(run.place);
    return run;
  };

  // The run that nobody kills: the bits to come to, its time, and its calls that write.
  const auto whole = fresh_run();
  const auto start = std::chrono::steady_clock::now();
  *calls = 0;
  for (const int status : test::job(ranks, [&](auto& world) { whole.work(data, world, {}); }).wait())
    REQUIRE(status == 0);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const std::uint64_t all_calls = *calls;
  const auto bits = bytes_of(whole.result(0));
  REQUIRE(bits.size() == (width * 40 + 40 + 41) * sizeof(float));
  REQUIRE(all_calls > 50);
  whole.check();
  REQUIRE(whole.counted() == steps);

  std::uint64_t killed = 0, inside = 0, through = 0, halves = 0;
  auto run = fresh_run();
  while (killed < kills) {
    const bool from_inside = draw.below(2) == 0;
    doom end;
    if (from_inside) end = {1 + draw.below(all_calls), static_cast<moment>(draw.below(3))};
    const double when = draw.uniform() * seconds;
    const auto victim = static_cast<std::size_t>(draw.below(static_cast<std::uint64_t>(ranks)));
    *calls = 0;
    test::job life(ranks, [&](auto& world) { run.work(data, world, end); });
    if (!from_inside) {
      std::this_thread::sleep_for(std::chrono::duration<double>(when));
      life.kill(victim);
    }
    const auto statuses = life.wait();
    const bool died = std::count(statuses.begin(), statuses.end(), test::job::killed) > 0;
    for (const int status : statuses)  // nobody ends for another reason: what the crash left could be resumed
      REQUIRE_MESSAGE((status == 0 || status == test::job::killed || (status == test::job::peer_lost && died)),
                      "status ", status, " in life ", run.life);
    ++run.life;
    if (died) {
      ++killed, ++run.deaths, inside += from_inside;
      for (const auto& entry : std::filesystem::directory_iterator(run.place))
        if (entry.path().filename() == "kept")
          for (const auto& file : std::filesystem::directory_iterator(entry))
            if (file.path().extension() == ".part") ++halves, std::filesystem::remove(file);
    }
    run.check();
    if (died) continue;
    // Through: the parameters of all ranks.
    ++through;
    for (int r = 0; r < ranks; ++r) {
      if (seed) CHECK((bytes_of(run.result(r)) == bits));
      else CHECK((bytes_of(run.result(r)) == bytes_of(run.result(0))));
    }
    if (!seed) CHECK((bytes_of(run.result(0)) != bits));
    run = fresh_run();
  }
  MESSAGE(std::string(seed ? "seeded: " : "private: "), killed, " kills, ", inside, " of them within a write; ", halves,
          " left a half-written checkpoint; ", through, " runs came through; DPSGD_CRASH_SEED=", points);
  CHECK(through > 0);
}

/// The counter that a rank shares with the test.
struct shared_counter {
  shared_counter() {
    void* memory = ::mmap(nullptr, sizeof(*calls), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    calls = new (memory) std::atomic<std::uint64_t>(0);
  }
  ~shared_counter() { ::munmap(std::exchange(calls, nullptr), sizeof(*calls)); }
};

}  // namespace

TEST_CASE("killed at random points, a seeded run comes to the bits of a run that was not") {
  const shared_counter counter;
  crash(2, 5, crashes / 2);
}

TEST_CASE("killed at random points, a private run uses no step of a key twice, and its ledger counts all of them") {
  const shared_counter counter;
  crash(3, {}, crashes / 2);
}
