#include "dpsgd/accounting/ledger.hpp"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iterator>
#include <random>

#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/pld.hpp"
#include "dpsgd/accounting/rdp.hpp"

using namespace dpsgd;
namespace fs = std::filesystem;

namespace {

constexpr const char* digest = "9c1185a5c5e9fc54";
constexpr std::uint64_t rows = 1000;
const poisson_sampled event{0.01, gaussian_event<zero_out>{0.9}};
const gaussian_event<zero_out> other_event{4.0};

/// A directory of our own: in memory where there is such a place, so that thousands of fsyncs do not wear out a disk.
struct scratch {
  fs::path path;
  explicit scratch(const fs::path& parent = fs::is_directory("/dev/shm") ? fs::path("/dev/shm")
                                                                         : fs::temp_directory_path()) {
    std::string name = (parent / "dpsgd-ledger-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()));
    path = name;
  }
  ~scratch() { fs::remove_all(path); }
};

std::string content(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void put(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
}

/// A ledger that remembers which run it has begun.
struct open_ledger : ledger {
  using ledger::ledger;
  std::uint64_t now = 0;
  template <class Event>
  std::uint64_t begin(const Event& each) {
    return now = ledger::begin(each);
  }
  void reserve(std::uint64_t steps) { ledger::reserve(now, steps); }
  void settle(std::uint64_t released) { ledger::settle(now, released); }
  std::uint64_t granted() const { return now ? ledger::granted(now) : 0; }
};

/// The steps of all runs together.
std::uint64_t counted(const ledger& book) {
  std::uint64_t steps = 0;
  for (const auto& r : book.runs()) steps += r.steps;
  return steps;
}
std::uint64_t counted(const fs::path& file) { return counted(ledger(file, digest, rows)); }

/// A ledger of a few runs, and for each length that it had when a record was done: what it counts.
struct history {
  std::string bytes;
  std::vector<std::pair<std::size_t, std::uint64_t>> counts;
};
history some_history(const fs::path& file) {
  history h;
  open_ledger book(file, digest, rows);
  const auto note = [&] { h.counts.emplace_back(fs::file_size(file), counted(book)); };
  note();
  book.begin(event), note();
  book.reserve(50), note();
  book.reserve(50), note();
  book.settle(83), note();
  book.begin(other_event), note();
  book.reserve(7), note();
  book.begin(no_privacy_event{{.no_clip = true}}), note();
  book.reserve(1), note();
  book.begin(event), note();
  book.reserve(1000), note();
  h.bytes = content(file);
  return h;
}

}  // namespace

TEST_CASE("a reservation is the smaller of 1,024 and a twentieth of the target, and never past it") {
  CHECK(reservation(0, 4688) == 234);
  CHECK(reservation(0, 1'000'000) == 1024);
  CHECK(reservation(4680, 4688) == 8);
  CHECK(reservation(4688, 4688) == 0);
  CHECK(reservation(5000, 4688) == 0);
  CHECK(reservation(0, 1) == 1);
  for (std::uint64_t target = 1; target < 50'000; target += 37) {
    std::uint64_t done = 0, times = 0;
    while (const auto n = reservation(done, target)) {
      REQUIRE(n <= 1024);
      REQUIRE((n == 1 || n * 20 <= target));
      done += n, ++times;
    }
    REQUIRE(done == target);
    REQUIRE(times <= 40 + target / 1024);
  }
}

TEST_CASE("a ledger remembers what was spent, over runs and over processes") {
  const scratch dir;
  const auto file = dir.path / "data.ledger";
  {
    open_ledger book(file, digest, rows);
    CHECK(book.runs().empty());
    const auto id = book.begin(event);
    CHECK(book.runs().back().id == id);
    CHECK(book.granted() == 0);
    book.reserve(50), book.reserve(50);
    CHECK(book.granted() == 100);
    book.settle(83);
    CHECK(book.granted() == 83);
    book.settle(83);  // again: nothing changes
    book.reserve(50);
    CHECK(book.granted() == 133);
  }  // the run ends without settling: all of it counts
  {
    open_ledger book(file, digest, rows);
    CHECK(counted(book) == 133);
    CHECK(book.granted() == 0);  // by nobody in this process
    book.begin(other_event);     // another run, or the same resumed
    book.reserve(7);
    book.settle(5);
  }
  const ledger book(file, digest, rows);
  REQUIRE(book.runs().size() == 2);
  CHECK(std::get<poisson_sampled<gaussian_event<zero_out>>>(book.runs()[0].event) == event);
  CHECK(std::get<gaussian_event<zero_out>>(book.runs()[1].event) == other_event);
  CHECK(book.runs()[1].steps == 5);
  CHECK(book.has(book.runs()[0].id));
  CHECK(book.runs()[0].id != book.runs()[1].id);
  CHECK_FALSE(book.has(0));

  rdp_accountant from_ledger, by_hand;
  book.add_to(from_ledger);
  by_hand.add(event, 133), by_hand.add(other_event, 5);
  CHECK(from_ledger.spent(1e-5).epsilon == by_hand.spent(1e-5).epsilon);
  CHECK(most_steps({2, 1e-5}, event, from_ledger) < most_steps<rdp_accountant>({2, 1e-5}, event));
}

TEST_CASE("a ledger serves one run at a time: the steps of one are never entered as another's") {
  const scratch dir;
  ledger book(dir.path / "data.ledger", digest, rows);
  const auto first = book.begin(event);
  book.reserve(first, 10);
  const auto second = book.begin(other_event);
  book.reserve(second, 5);
  const auto refused = doctest::Contains("one run at a time");
  CHECK_THROWS_WITH_AS(book.reserve(first, 10), refused, error);
  CHECK_THROWS_WITH_AS(book.settle(first, 3), refused, error);
  CHECK_THROWS_WITH_AS(static_cast<void>(book.granted(first)), refused, error);
  CHECK(book.granted(second) == 5);
  CHECK(book.counted(event) == 10);  // what was reserved stays counted
  CHECK(book.counted(other_event) == 5);
}

TEST_CASE("a run that protects owners and one that protects rows have no ledger in common") {
  const scratch here;
  const auto file = here.path / "owners.ledger";
  const poisson_sampled owners{0.01, gaussian_event<zero_out>{1.25, 4}};
  {
    ledger book(file, digest, 1000);
    book.begin(no_privacy_event{{.no_noise = true}});
    book.begin(poisson_sampled{0.01, gaussian_event<zero_out>{1.25}});  // no step of it ran: it binds nobody
    const auto run = book.begin(owners);
    book.reserve(run, 10);
    CHECK_THROWS_WITH(
        book.begin(poisson_sampled{0.01, gaussian_event<zero_out>{1.25}}),
        doctest::Contains("protect one row, but earlier ones on the same data one owner of at most 4 rows"));
    book.reserve(run, 10);
  }
  ledger book(file, digest, 1000);
  CHECK(book.runs().size() == 3);
  CHECK(book.counted(owners) == 20);
  const poisson_sampled others{0.01, gaussian_event<zero_out>{1.25, 4, 99}};
  CHECK_THROWS_WITH(book.begin(others), doctest::Contains("protect other owners than earlier ones"));
  pld_accountant spent, wanted;
  book.add_to(spent), wanted.add(owners, 20);
  CHECK(spent.spent(1e-5).epsilon == wanted.spent(1e-5).epsilon);
}

TEST_CASE("numbers are read back to the last bit") {
  const scratch dir;
  std::mt19937_64 bits(7);
  for (int i = 0; i < 100; ++i) {
    const poisson_sampled odd{std::ldexp(static_cast<double>(bits() >> 11), -53 - i),
                              gaussian_event<zero_out>{std::ldexp(static_cast<double>(bits() >> 11), i - 70)}};
    const auto file = dir.path / "odd.ledger";
    fs::remove(file);
    { ledger(file, digest, rows).begin(odd); }
    REQUIRE(std::get<0>(ledger(file, digest, rows).runs().at(0).event) == odd);
  }
}

TEST_CASE(
    "runs of every sampling are read back, each with its own epochs; an accountant refuses what it does not know") {
  const scratch dir;
  const auto file = dir.path / "data.ledger";
  const fixed_size_sampled fixed{0.01, gaussian_event<zero_out>{0.9}};
  const once_per_epoch shuffled{100.0, gaussian_event<zero_out>{5}};
  {
    open_ledger book(file, digest, rows);
    for (const std::uint64_t steps : {150, 20}) {
      book.begin(shuffled);
      book.reserve(steps);
    }
  }
  {
    open_ledger book(file, digest, rows);
    REQUIRE(book.runs().size() == 2);
    CHECK(std::get<once_per_epoch<gaussian_event<zero_out>>>(book.runs()[0].event) == shuffled);
    rdp_accountant from_ledger, by_hand;
    book.add_to(from_ledger);
    by_hand.add(shuffled.event, 3);  // 150 steps are two epochs, and 20 under another key one more
    CHECK(from_ledger.spent(1e-5).epsilon == by_hand.spent(1e-5).epsilon);
    book.begin(fixed);
    book.reserve(5);
  }
  const ledger book(file, digest, rows);
  CHECK(std::get<fixed_size_sampled<gaussian_event<zero_out>>>(book.runs()[2].event) == fixed);
  rdp_accountant all;
  book.add_to(all);
  pld_accountant refuses;
  CHECK_THROWS_WITH_AS(book.add_to(refuses), doctest::Contains("cannot account for a run of kind fixed-size-gaussian"),
                       error);
  CHECK(content(file).find(" once-per-epoch-gaussian zero-out epoch=100 multiplier=5 #") != std::string::npos);
}

TEST_CASE("a ledger refuses wrong use") {
  const scratch dir;
  const auto file = dir.path / "data.ledger";
  open_ledger book(file, digest, rows);
  CHECK_THROWS_WITH_AS(book.reserve(1), doctest::Contains("begin(event)"), error);
  CHECK_THROWS_AS(book.begin(poisson_sampled{1.5, gaussian_event<zero_out>{1}}), error);
  book.begin(event);
  book.reserve(10);
  CHECK_THROWS_AS(book.settle(11), error);
  CHECK_THROWS_AS(book.reserve(~std::uint64_t{0}), error);
  book.settle(8);
  book.reserve(5);
  CHECK_THROWS_AS(book.settle(7), error);
  CHECK(book.granted() == 13);
  CHECK_THROWS_WITH_AS(ledger(dir.path / "absent" / "x", digest, rows), doctest::Contains("cannot open"), error);
  for (const char* bad : {"", "9c1185a5c5e9fc5", "9C1185A5C5E9FC54", "9c1185a5c5e9fc5 "})
    CHECK_THROWS_AS(ledger(dir.path / "y", bad, rows), error);
}

TEST_CASE("a ledger of other data, of another format or of a newer version is refused and left alone") {
  const scratch dir;
  const auto file = dir.path / "data.ledger";
  some_history(file);
  const auto before = content(file);
  CHECK_THROWS_WITH_AS(ledger(file, "0123456789abcdef", rows), doctest::Contains("belongs to another data set"), error);
  CHECK_THROWS_WITH_AS(ledger(file, digest, rows + 1), doctest::Contains("belongs to another data set"), error);
  CHECK(content(file) == before);
  for (const std::string text : {"name,age\nx,3\n", "x", "dpsgd-ledger 2 data=0123", "\n", "dpsgd-ledger\n"}) {
    const auto not_ours = dir.path / "other";
    put(not_ours, text);
    CHECK_THROWS_AS(ledger(not_ours, digest, rows), error);
    CHECK(content(not_ours) == text);
  }
}

TEST_CASE("two runs cannot have one ledger open") {
  const scratch dir;
  const auto file = dir.path / "data.ledger";
  {
    const ledger first(file, digest, rows);
    CHECK_THROWS_WITH_AS(ledger(file, digest, rows), doctest::Contains("another run has it open"), error);
  }
  CHECK_NOTHROW(ledger(file, digest, rows));
}

TEST_CASE("cut off at any byte, a ledger counts everything that had been granted by then, and goes on") {
  const scratch dir;
  const auto h = some_history(dir.path / "whole");
  const auto file = dir.path / "cut";
  for (std::size_t size = 0; size <= h.bytes.size(); ++size) {
    // What was granted by the records that are done. A record that lacks but its newline counts, too.
    std::uint64_t granted = 0;
    for (const auto& [end, count] : h.counts)
      if (end <= size + (h.bytes[size] == '\n')) granted = count;
    for (const std::string& tail : {std::string(), std::string(30, '\0')}) {  // a power cut can leave zeros
      put(file, h.bytes.substr(0, size) + tail);
      INFO("size ", size);
      {
        open_ledger book(file, digest, rows);
        REQUIRE(counted(book) == granted);
        book.begin(other_event), book.reserve(3);
      }
      REQUIRE(counted(file) == granted + 3);
    }
  }
}

TEST_CASE("any byte changed anywhere is refused, with the file, the line and a remedy") {
  const scratch dir;
  const auto file = dir.path / "data.ledger";
  const auto h = some_history(file);
  const auto truth = counted(file);
  for (std::size_t at = 0; at < h.bytes.size(); ++at)
    for (int change = 1; change < 256; change += at % 7 == 0 || h.bytes[at] == '\n' ? 1 : 51) {
      auto bytes = h.bytes;
      bytes[at] = static_cast<char>(bytes[at] ^ change);
      put(file, bytes);
      INFO("byte ", at, " change ", change);
      try {
        const auto count = counted(file);
        REQUIRE(count == truth);  // never less. Only the last newline can be missing without harm
        REQUIRE((at + 1 == h.bytes.size() && bytes[at] == '\0'));
        REQUIRE(content(file) == h.bytes);
      } catch (const error& e) {
        const std::string what = e.what();
        REQUIRE(what.find(file.string() + ":" +
                          std::to_string(1 + std::count(h.bytes.begin(), h.bytes.begin() + static_cast<long>(at),
                                                        '\n'))) != what.npos);
        REQUIRE(content(file) == bytes);  // evidence is not touched
      }
    }
}

TEST_CASE("lines that are missing, doubled or exchanged are refused") {
  const scratch dir;
  const auto file = dir.path / "data.ledger";
  const auto h = some_history(file);
  std::vector<std::string> lines;
  for (std::size_t from = 0; from < h.bytes.size();) {
    const auto end = h.bytes.find('\n', from) + 1;
    lines.push_back(h.bytes.substr(from, end - from));
    from = end;
  }
  const auto refused = [&](const std::vector<std::string>& changed) {
    std::string bytes;
    for (const auto& line : changed) bytes += line;
    put(file, bytes);
    CHECK_THROWS_AS(counted(file), error);
  };
  for (std::size_t i = 0; i < lines.size(); ++i) {
    auto doubled = lines, missing = lines, exchanged = lines;
    doubled.insert(doubled.begin() + static_cast<long>(i), lines[i]);
    refused(doubled);
    if (i + 1 == lines.size()) break;  // without its last line it is an earlier ledger: only a backup can tell
    missing.erase(missing.begin() + static_cast<long>(i));
    refused(missing);
    std::swap(exchanged[i], exchanged[i + 1]);
    refused(exchanged);
  }
}

TEST_CASE("whatever is in the file, the reader answers or refuses") {
  const scratch dir;
  const auto file = dir.path / "data.ledger";
  const auto h = some_history(file);
  std::mt19937_64 random(11);
  const std::string alphabet("\n #=0159abcdefrunsvtl\0-", 23);
  int answered = 0;
  for (int round = 0; round < 3000; ++round) {
    auto bytes = h.bytes.substr(0, random() % (h.bytes.size() + 1));
    for (auto edits = random() % 4; edits-- > 0;) {
      const auto at = static_cast<std::size_t>(random() % (bytes.size() + 1));
      const auto piece = h.bytes.substr(random() % h.bytes.size(), random() % 40);
      switch (random() % 4) {
        case 0:
          bytes.insert(at, 1, alphabet[random() % alphabet.size()]);
          break;
        case 1:
          bytes.erase(at, random() % 20);
          break;
        case 2:
          bytes.insert(at, piece);
          break;
        default:
          bytes.append(piece);
      }
    }
    put(file, bytes);
    try {
      const ledger book(file, digest, rows);
      ++answered;
    } catch (const error&) {
    }
  }
  CHECK(answered > 100);
  CHECK(answered < 2900);
}

TEST_CASE("a full disk grants nothing, and the ledger goes on when there is room again") {
  const scratch dir;
  const auto file = dir.path / "data.ledger";
  open_ledger book(file, digest, rows);
  book.begin(event), book.reserve(10);
  const auto size = fs::file_size(file);
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  for (rlim_t room = 0; room < 25; ++room) {  // a part of the line fits
    const rlimit full{size + room, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &full) == 0);
    std::string message;
    try {
      book.reserve(5);
    } catch (const error& e) {
      message = e.what();
    }
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    REQUIRE(message.find(file.string()) != message.npos);
    REQUIRE(message.find("no step may be released") != message.npos);
    REQUIRE(book.granted() == 10);
    REQUIRE(fs::file_size(file) == size);
  }
  book.reserve(5);
  CHECK(book.granted() == 15);
  CHECK(counted(book) == 15);
}

TEST_CASE("a run killed at any time: never counted less than released, never more than one reservation above") {
  const scratch dir;
  const auto file = dir.path / "data.ledger";
  auto* released = static_cast<std::atomic<std::uint64_t>*>(
      ::mmap(nullptr, sizeof(std::atomic<std::uint64_t>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  REQUIRE(released != MAP_FAILED);
  new (released) std::atomic<std::uint64_t>(0);
  constexpr std::uint64_t block = 16;
  std::uint64_t slack = 0;  // what earlier crashes over-counted
  for (int round = 0; round < 60; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {  // a trainer: reserve, release step by step, a checkpoint now and then
      open_ledger book(file, digest, rows);
      book.begin(event);
      for (std::uint64_t step = 0;; ++step) {
        if (step % 50 == 49) book.settle(step);
        if (step == book.granted()) book.reserve(block);
        released->fetch_add(1);
      }
    }
    ::usleep(static_cast<useconds_t>(500 + round * 211 % 5000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const auto count = counted(file);
    REQUIRE(count >= released->load());
    REQUIRE(count - released->load() <= slack + block);
    slack = count - released->load();
  }
  CHECK(released->load() > 0);
  ::munmap(released, sizeof *released);
}

TEST_CASE("what a reservation costs on a disk (printed, never tested)") {
  const scratch dir(fs::temp_directory_path());
  open_ledger book(dir.path / "data.ledger", digest, rows);
  book.begin(event);
  std::vector<double> us;
  for (int i = 0; i < 100; ++i) {
    const auto start = std::chrono::steady_clock::now();
    book.reserve(234);
    us.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(us.begin(), us.end());
  MESSAGE("reserve(): median " << us[50] << " us, 95 of 100 within " << us[95] << " us");
}
