/// The ledger: rank 0's file of all privacy that was ever spent on one data set, over all runs on it.
///
/// Law: the file never counts fewer steps than were released. Steps are reserved on the disk before they run; settling
/// returns those that did not. A crash therefore over-counts by at most one reservation, and never under-counts.
///
/// It is text, one record a line, only ever appended to (docs/decisions/ledger-format.md):
///   dpsgd-ledger 2 data=9c1185a5c5e9fc54 rows=1200000 #b3f1...                      which data
///   run 51c06fd23a97be84 poisson-gaussian zero-out rate=0.0002 multiplier=0.9 #...  a run begins: its number, drawn
///                                                                                   at random, and each step's event
///   reserve 234 #...                                                                its steps up to the 234th may run
///   settle 200 #...                                                                 200 were released, and no others
/// The number after # is a checksum of the line and of all lines before it.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "dpsgd/accounting/events.hpp"
#include "dpsgd/core/durable_file.hpp"
#include "dpsgd/core/error.hpp"
#include "dpsgd/core/random.hpp"

namespace dpsgd {

/// How many steps to reserve at a time: the smaller of 1,024 and a twentieth of `target`, at least 1, never past it.
constexpr std::uint64_t reservation(std::uint64_t done, std::uint64_t target) {
  if (done >= target) return 0;
  return std::min({std::uint64_t{1024}, std::max(std::uint64_t{1}, target / 20), target - done});
}

/// Opened by one process at a time (the file is locked while the object lives), and serves one run at a time: once
/// another run has begun, the one before can count no more. Threads may share it. Every member throws dpsgd::error.
///   ledger book("people.csv.ledger", digest, rows);
///   const auto run = book.begin(event);
///   book.reserve(run, n);      // on the disk when it returns: now n steps may run
///   book.settle(run, done);    // at a checkpoint or the end: `done` steps of this run were released so far
class ledger {
 public:
  struct run {
    std::uint64_t id;  // drawn at random, never 0
    recorded_event event;
    std::uint64_t steps = 0;    // that count as released: the last reserve or settle
    std::uint64_t settled = 0;  // of them known to be released
  };

  /// Opens the ledger of a data set of `rows` rows with this `digest` (16 or 32 hexadecimal digits), or creates it.
  /// Refuses a file that belongs to other data, that is damaged, or that another process has open. A last line that was
  /// cut off while it was being written was never granted to anybody, and is removed.
  ledger(const std::filesystem::path& file, std::string_view digest, std::uint64_t rows) : file_(file) {
    require((digest.size() == 16 || digest.size() == 32) && digest.find_first_not_of("0123456789abcdef") == digest.npos,
            "a ledger needs the data set's digest as 16 or 32 lower-case hexadecimal digits; got '", digest, "'");
    fd_ = detail::file_descriptor(::open(file_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
    if (!fd_)
      fail("ledger ", file_.string(), ": cannot open it (", std::strerror(errno),
           "); it must lie in a directory that exists and can be written to");
    struct stat facts {};
    require(::fstat(fd_.get(), &facts) == 0 && S_ISREG(facts.st_mode), "ledger ", file_.string(),
            ": this is no plain file; name one (a ledger must last)");
    if (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) fail("ledger ", file_.string(), ": cannot lock it (", std::strerror(errno), ")");
      fail("ledger ", file_.string(),
           ": another run has it open; the runs on one data set spend its budget one after the "
           "other, so wait for that one to end");
    }
    const std::string header = "dpsgd-ledger 2 data=" + std::string(digest) + " rows=" + std::to_string(rows);
    read(header);
    if (size_ == 0) {
      append(header);
      require(detail::sync_directory(file_.parent_path()), "ledger ", file_.string(),
              ": cannot bring its directory to the disk (", std::strerror(errno), ")");
    }
  }

  /// A run begins, or goes on from a checkpoint under a new key: from here on each step is one `event`. Also called in
  /// the middle of a run when its event changes, with a new key where it is one whose steps count from the key's begin
  /// (once_per_epoch, cyclically_sampled): each run here is accounted for as the steps of one key. What earlier runs
  /// left reserved stays counted. Returns the run's number, by which a checkpoint knows its ledger again. Refused where
  /// steps of earlier runs protect another unit.
  template <class Event>
  std::uint64_t begin(const Event& event) {
    const std::lock_guard lock(mutex_);
    event.check();
    protected_unit unit;
    for (const auto& r : runs_)
      if (r.steps > 0) std::visit([&](const auto& earlier) { unit.add(earlier); }, r.event);
    unit.add(event);
    const auto words = random_key::fresh().words;
    const auto id = std::max(std::uint64_t{words[0]} << 32 | words[1], std::uint64_t{1});
    append("run " + hex(id) + " " + event_words(event));
    runs_.push_back({id, event, 0, 0});
    begun_ = true;
    return id;
  }

  /// Whether the run of this number is entered here.
  bool has(std::uint64_t id) const {
    const std::lock_guard lock(mutex_);
    return std::any_of(runs_.begin(), runs_.end(), [&](const run& r) { return r.id == id; });
  }

  /// Counts `steps` more steps of this run. They may run once this has returned. Cost: one short write and one
  /// fdatasync.
  void reserve(std::uint64_t id, std::uint64_t steps) {
    const std::lock_guard lock(mutex_);
    auto& now = current(id);
    require(steps <= ~now.steps, "ledger ", file_.string(), ": more steps reserved than can be counted");
    append("reserve " + std::to_string(now.steps + steps));
    now.steps += steps;
  }

  /// `released` steps of this run (since begin) were released so far, and no others. Steps reserved beyond are
  /// returned: reserve again before the next one. Settling the same number again changes nothing.
  void settle(std::uint64_t id, std::uint64_t released) {
    const std::lock_guard lock(mutex_);
    auto& now = current(id);
    require(released <= now.steps, "ledger ", file_.string(), ": ", released, " steps were released where only ",
            now.steps, " were reserved: a bug, please report it");
    require(released >= now.settled, "ledger ", file_.string(), ": ", now.settled,
            " steps were settled as released already, so there cannot be only ", released);
    if (released == now.settled && released == now.steps) return;
    append("settle " + std::to_string(released));
    now.steps = now.settled = released;
  }

  /// How many steps of this run (since begin) may have run: the sum of what was reserved, less what was returned.
  std::uint64_t granted(std::uint64_t id) const {
    const std::lock_guard lock(mutex_);
    return current(id).steps;
  }

  /// How many steps of this event all runs together count.
  std::uint64_t counted(const recorded_event& event) const {
    const std::lock_guard lock(mutex_);
    std::uint64_t steps = 0;
    for (const auto& r : runs_)
      if (r.event == event) steps += r.steps;
    return steps;
  }

  /// All runs, this one included, in the order of the file. Not while another thread begins one.
  const std::vector<run>& runs() const { return runs_; }

  /// Adds all that was spent on the data to `accountant`, run by run: begin with an empty one, then ask it for epsilon,
  /// or give it to most_steps() (calibrate.hpp) to see what a budget leaves. Throws when a run's event is none that it
  /// knows.
  template <accountant Accountant>
  void add_to(Accountant& spent) const {
    const std::lock_guard lock(mutex_);
    for (const auto& r : runs_) {
      std::visit(
          [&](const auto& event) {
            using event_type = std::decay_t<decltype(event)>;
            if constexpr (accounts<Accountant, event_type>) spent.add(event, r.steps);
            else
              fail("ledger ", file_.string(), ": the ", Accountant::name,
                   " accountant cannot account for a run of kind ", event_type::kind(), "; use another accountant");
          },
          r.event);
    }
  }

 private:
  static constexpr std::uint64_t first_sum = 0xcbf29ce484222325;
  static constexpr std::size_t sum_size = 18;  // " #" and 16 digits

  /// FNV-1a, continued from the sum of the line before. Each byte's step is one-to-one, so a changed byte always shows.
  static std::uint64_t checksum(std::uint64_t before, std::string_view line) {
    for (const char c : line) before = (before ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    return before;
  }

  static std::string hex(std::uint64_t number) {
    std::string digits(16, '0');
    for (std::size_t i = 0; i < 16; ++i) digits[i] = "0123456789abcdef"[number >> (60 - 4 * i) & 15];
    return digits;
  }
  static std::string sum_text(std::uint64_t sum) { return " #" + hex(sum); }

  /// The event of these words, if they are of its kind and nothing else.
  template <class Event>
  static std::optional<recorded_event> parse(std::string_view text) {
    Event event;
    const std::string kind = Event::kind() + " " + std::string(Event::adjacency::name);
    if (!text.starts_with(kind)) return {};
    text.remove_prefix(kind.size());
    bool good = true;
    event.each_number([&](const char* name, double& number, double usual = std::numeric_limits<double>::quiet_NaN()) {
      const std::string key = std::string(" ") + name + "=";
      if (!text.starts_with(key) && number == usual) return;
      if (!(good = good && text.starts_with(key))) return;
      text.remove_prefix(key.size());
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      good = error == std::errc{};
      text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    });
    if (!good || !text.empty()) return {};
    return event;
  }
  template <class... Events>
  static std::optional<recorded_event> parse_any(std::string_view text, const std::variant<Events...>*) {
    std::optional<recorded_event> found;
    ((found || (found = parse<Events>(text))), ...);
    return found;
  }

  static std::optional<std::uint64_t> parse_count(std::string_view digits, int base = 10) {
    std::uint64_t count = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count, base);
    if (error != std::errc{} || end != digits.data() + digits.size()) return {};
    return count;
  }

  const run& current(std::uint64_t id) const {
    require(begun_, "ledger ", file_.string(), ": begin(event) comes before reserve and settle");
    require(runs_.back().id == id, "ledger ", file_.string(),
            ": another run has begun in it, so this one can be counted no more; a ledger serves one run at a time");
    return runs_.back();
  }
  run& current(std::uint64_t id) {
    std::as_const(*this).current(id);
    return runs_.back();
  }

  [[noreturn]] void damaged(std::size_t line, std::string_view what) const {
    fail(
        "ledger ", file_.string(), ":", line, ": ", what,
        "; restore the file from a backup. Without one, what was spent on this data set is not known, and a new ledger "
        "would forget it");
  }

  /// Reads the whole file, checks every line, and leaves runs_, sum_ and size_ as they stand after the last good one.
  void read(const std::string& header) {
    std::string bytes;
    char block[1 << 16];
    for (ssize_t got; (got = ::pread(fd_.get(), block, sizeof block, static_cast<off_t>(bytes.size()))) != 0;) {
      if (got < 0 && errno == EINTR) continue;
      require(got > 0, "ledger ", file_.string(), ": cannot read it (", std::strerror(errno), ")");
      bytes.append(block, static_cast<std::size_t>(got));
    }
    std::string_view rest = bytes;
    for (std::size_t line = 1; !rest.empty(); ++line) {
      const auto end = rest.find('\n');
      if (end == rest.npos) return read_tail(rest, line, header);
      read_line(rest.substr(0, end), line, header);
      rest.remove_prefix(end + 1);
      size_ += end + 1;
    }
  }

  bool sum_holds(std::string_view line) const {
    if (line.size() < sum_size) return false;
    const auto text = line.substr(0, line.size() - sum_size);
    return line.substr(text.size()) == sum_text(checksum(sum_, text));
  }

  void read_line(std::string_view line, std::size_t number, const std::string& header) {
    if (number == 1)
      require(line.starts_with("dpsgd-ledger "), "ledger ", file_.string(), ":1: this is no ledger; name another file");
    if (!sum_holds(line)) damaged(number, "this line is damaged, or one before it is missing");
    const auto text = line.substr(0, line.size() - sum_size);
    sum_ = checksum(sum_, text);
    if (number == 1) {
      require(text.starts_with("dpsgd-ledger 2 "), "ledger ", file_.string(),
              ":1: another version of dpsgd wrote this file; use that version");
      require(text == header, "ledger ", file_.string(), ":1: it belongs to another data set (", text.substr(15),
              ") than this one (", std::string_view(header).substr(15), "); name this data set's own ledger");
      return;
    }
    const auto space = std::min(text.find(' '), text.size() - 1);
    const auto word = text.substr(0, space), argument = text.substr(space + 1);
    if (word == "run") {
      const auto id = parse_count(argument.substr(0, 16), 16);
      if (!id || argument.size() < 17 || argument[16] != ' ') damaged(number, "this record makes no sense");
      const auto words = argument.substr(17);
      const auto event = parse_any(words, static_cast<const recorded_event*>(nullptr));
      require(event.has_value(), "ledger ", file_.string(), ":", number, ": '", words,
              "' is no event that this version of dpsgd knows; use the version that wrote it");
      std::visit([](const auto& e) { e.check(); }, *event);
      runs_.push_back({*id, *event, 0, 0});
      return;
    }
    const auto count = parse_count(argument);
    if (!count || runs_.empty()) damaged(number, "this record makes no sense");
    auto& now = runs_.back();
    if (word == "reserve" && *count >= now.steps) now.steps = *count;
    else if (word == "settle" && *count >= now.settled && *count <= now.steps) now.steps = now.settled = *count;
    else damaged(number, "this record makes no sense");
  }

  /// A last line without its end: its writer was cut off before anything was granted, or damage.
  void read_tail(std::string_view tail, std::size_t line, const std::string& header) {
    while (!tail.empty() && tail.back() == '\0')
      tail.remove_suffix(1);  // a power cut can leave the size without the bytes
    if (sum_holds(tail)) {    // all of it is there but its end: it counts, and its writer may have known
      read_line(tail, line, header);
      size_ += tail.size();
      truncate(size_);
      write("\n");
      ++size_;
      return;
    }
    // A whole record has its checksum; cut off it has less. More, or a wrong one, is not the work of a crash.
    const auto mark = tail.rfind(" #");
    if (mark != tail.npos && tail.size() >= mark + sum_size) damaged(line, "this line is damaged");
    if (line == 1)
      require((header + sum_text(checksum(first_sum, header))).starts_with(tail), "ledger ", file_.string(),
              ":1: this is no ledger, or one of another data set that was cut off when it was made; name another file");
    truncate(size_);
  }

  void truncate(std::size_t size) {
    require(::ftruncate(fd_.get(), static_cast<off_t>(size)) == 0, "ledger ", file_.string(),
            ": cannot repair its end (", std::strerror(errno), ")");
  }

  /// Writes and waits for the disk. After a failure the file ends where it did before; where even that is not known,
  /// the ledger is closed for good.
  void write(const std::string& bytes) {
    require(!broken_, "ledger ", file_.string(), ": an earlier write failed and left it in doubt; start again");
    const bool wrote = detail::write_all(fd_.get(), bytes.data(), bytes.size());
    if (wrote && ::fdatasync(fd_.get()) == 0) return;
    const int reason = errno;
    broken_ = wrote || ::ftruncate(fd_.get(), static_cast<off_t>(size_)) != 0;
    fail("ledger ", file_.string(), ": cannot write to it (", std::strerror(reason), "), so no step may be released");
  }

  void append(const std::string& text) {
    const auto sum = checksum(sum_, text);
    const std::string line = text + sum_text(sum) + "\n";
    write(line);
    sum_ = sum;
    size_ += line.size();
  }

  std::filesystem::path file_;
  detail::file_descriptor fd_;
  mutable std::mutex mutex_;  // guards all below
  std::vector<run> runs_;
  std::uint64_t sum_ = first_sum;
  std::size_t size_ = 0;  // bytes of whole lines
  bool begun_ = false, broken_ = false;
};

}  // namespace dpsgd
