/// Reads a CSV file into a dataset, at the speed of memory: two passes over the mapped file, no field ever copied.
///
/// Pass 1 cuts the file into blocks and counts where records end (and digests the bytes), so that pass 2 can begin at
/// any record. Pass 2 parses ranges of records, each on a thread of its own, straight into the rows of one matrix.
///
/// The grammar (RFC 4180): comma-separated fields, a header line. A field may stand in quotes, and then hold commas,
/// line ends and doubled quotes. Lines end with LF or CRLF, or, if the header's does, with CR alone. A UTF-8 byte order
/// mark, blank lines at the end and a missing last line end are fine. Numbers are decimal, with or without exponent,
/// whatever the locale; blanks around them are ignored. An empty field and NA are missing values.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <iterator>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dpsgd/core/digest.hpp"
#include "dpsgd/core/error.hpp"
#include "dpsgd/data/dataset.hpp"
#include "dpsgd/data/schema.hpp"

namespace dpsgd {

/// What to do with a row that does not fit the schema: a missing value without default, no number, no category, too
/// few or too many fields.
enum class bad_rows {
  error,  // throw: the first one in the file is named
  drop    // leave it out; it keeps its place among the positions (dataset::all), and dataset::dropped counts it
};

/// How to read. The dataset does not depend on threads; the parts one after the other are the whole.
struct csv_options {
  int threads = 1;
  int part = 0, parts = 1;  // read only this part of the rows, of so many about equal ones: a rank's
  dpsgd::bad_rows bad_rows = dpsgd::bad_rows::error;
  bool labels =
      true;  // false: the label's column is not read and need not be there (for predictions); all labels are 0
};

namespace detail {

/// A file's bytes, mapped; what cannot be mapped (a pipe) is read into memory.
class file_bytes {
 public:
  [[gnu::cold]] explicit file_bytes(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    require(file >= 0, "cannot open ", path, ": ", std::strerror(errno));
    struct closer {
      int file;
      ~closer() { ::close(file); }
    } close_at_end{file};
    struct stat facts {};
    require(::fstat(file, &facts) == 0, "cannot read ", path, ": ", std::strerror(errno));
    require(!S_ISDIR(facts.st_mode), path, " is a directory, not a CSV file");
    if (S_ISREG(facts.st_mode) && facts.st_size > 0) {
      size_ = static_cast<std::size_t>(facts.st_size);
      void* memory = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
      if (memory != MAP_FAILED) {
        mapped_ = static_cast<const char*>(memory);
        return;
      }
    }
    char buffer[1 << 16];
    for (ssize_t got; (got = ::read(file, buffer, sizeof buffer)) != 0;) {
      if (got < 0 && errno == EINTR) continue;
      require(got > 0, "cannot read ", path, ": ", std::strerror(errno));
      copied_.append(buffer, static_cast<std::size_t>(got));
    }
  }
  ~file_bytes() {
    if (mapped_) ::munmap(const_cast<char*>(mapped_), size_);
  }
  file_bytes(const file_bytes&) = delete;
  file_bytes& operator=(const file_bytes&) = delete;

  std::string_view text() const { return mapped_ ? std::string_view(mapped_, size_) : std::string_view(copied_); }

  /// Tells the system that [begin, end) has been read: the pages leave this process, not the page cache.
  void done_with(const char* begin, const char* end) const {
    if (!mapped_) return;
    constexpr std::uintptr_t page = 1 << 16;  // no system's pages are larger
    const auto first = (reinterpret_cast<std::uintptr_t>(begin) + page - 1) / page * page;
    const auto last = reinterpret_cast<std::uintptr_t>(end) / page * page;
    if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  }

 private:
  const char* mapped_ = nullptr;
  std::size_t size_ = 0;
  std::string copied_;
};

/// Calls work(t) for t in [0, threads), each on a thread of its own, and waits for all. The first exception, in the
/// order of t, is thrown again.
inline void in_parallel(int threads, const std::function<void(int)>& work) {
  std::vector<std::exception_ptr> thrown(static_cast<std::size_t>(threads));
  const auto guarded = [&](int t) {
    try {
      work(t);
    } catch (...) {
      thrown[static_cast<std::size_t>(t)] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(guarded, t);
    guarded(0);
  }
  for (const auto& exception : thrown)
    if (exception) std::rethrow_exception(exception);
}

/// How often `byte` occurs. Vectors by hand, since -O2 does not vectorise this loop.
inline std::size_t count_byte(const char* begin, const char* end, char byte) {
  typedef signed char lanes __attribute__((vector_size(16)));
  constexpr std::ptrdiff_t step = 4 * sizeof(lanes);
  const lanes wanted = lanes{} + static_cast<signed char>(byte);
  std::size_t count = 0;
  while (end - begin >= step) {
    lanes sums[4] = {};
    const auto steps = std::min<std::ptrdiff_t>(127, (end - begin) / step);  // so that no lane overflows
    for (std::ptrdiff_t k = 0; k < steps; ++k, begin += step) {
      lanes bytes[4];
      std::memcpy(bytes, begin, sizeof bytes);
      for (int i = 0; i < 4; ++i) sums[i] -= bytes[i] == wanted;  // -1 where equal
    }
    for (int i = 0; i < 4; ++i)
      for (int lane = 0; lane < 16; ++lane) count += static_cast<std::size_t>(sums[i][lane]);
  }
  for (; begin != end; ++begin) count += *begin == byte;
  return count;
}

/// The field as an error message shows it: cut short, with control characters spelled out.
[[gnu::cold]] inline std::string shown(std::string_view field) {
  std::string out = "\"";
  for (const char c : field.substr(0, 40)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 32 || byte == 127) out += {'\\', 'x', "0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
    else out += c;
  }
  return out + (field.size() > 40 ? "\"... (" + std::to_string(field.size()) + " characters)" : "\"");
}

/// A whole text as CSV: the header, and where its records begin.
///
/// A line end is a record's end if an even number of quotes stands before it, so each block can be counted without
/// knowing its surroundings: for both parities. Text that breaks the grammar is still cut somewhere; the parser finds
/// the first break, and nothing behind it is reported.
class csv_text {
 public:
  [[gnu::cold]] csv_text(std::string_view text, std::string name) : text_(text), name_(std::move(name)) {
    read_header();
  }

  std::string_view text() const { return text_; }
  char line_end() const { return line_end_; }  // '\n' (a '\r' before it belongs to it) or '\r'
  const std::vector<std::string>& header() const { return header_; }
  std::uint64_t records() const { return records_; }
  bool ends_with_line_end() const { return after_body_ > 0; }
  data_digest digest() const { return digest_; }

  /// Pass 1. Forget(begin, end) is told what has been read.
  template <class Forget>
  void index(int threads, const Forget& forget) {
    blocks_.resize((text_.size() + digest_block - 1) / digest_block);
    std::vector<data_digest> digests(blocks_.size());
    in_parallel(threads, [&](int t) {
      const auto n = blocks_.size(), of = static_cast<std::size_t>(threads), me = static_cast<std::size_t>(t);
      for (std::size_t b = n * me / of; b < n * (me + 1) / of; ++b) {
        const auto piece = text_.substr(b * digest_block, digest_block);
        digests[b] = digest_of_block(piece.data(), piece.size());
        const auto body = body_of(b);
        count(body.data(), body.data() + body.size(), blocks_[b]);
        forget(piece.data(), piece.data() + piece.size());
      }
    });
    digest_ = digest_of_blocks(digests);
    bool odd = false;
    std::uint64_t before = 0;
    for (auto& block : blocks_) {
      block.starts_odd = odd, block.before = before;
      before += block.ends[odd];
      odd ^= block.odd_quotes;
    }
    records_ = body_end_ == body_begin_ ? 0 : before + 1;
  }

  /// Where record r begins; for r = records(), where the last one ends. Costs a block's scan.
  std::size_t start(std::uint64_t r) const {
    if (r == 0) return body_begin_;
    if (r == records_) return body_end_ + after_body_;
    const auto after = std::upper_bound(blocks_.begin(), blocks_.end(), r - 1,
                                        [](std::uint64_t value, const block_ends& b) { return value < b.before; });
    const auto& block = *std::prev(after);
    const auto body = body_of(static_cast<std::size_t>(std::prev(after) - blocks_.begin()));
    bool odd = block.starts_odd;
    auto left = r - block.before;  // line ends still to pass
    for (const char& c : body) {
      odd ^= c == '"';
      if (c == line_end_ && !odd && --left == 0) return static_cast<std::size_t>(&c - text_.data()) + 1;
    }
    fail("csv_text: no record ", r);  // cannot be: the blocks counted it
  }

  /// Throws "name:line:column: what". Lines and columns (bytes of the line) count from 1.
  template <class... What>
  [[noreturn, gnu::cold]] void fail_at(std::size_t at, message first, const What&... what) const {
    fail(message(place_of(at), first.place), dpsgd::text(first.words, what...));
  }

 private:
  struct block_ends {
    std::uint64_t ends[2] = {0, 0};  // line ends with an even, an odd number of quotes before them in the block
    std::uint64_t before = 0;        // records that end before the block
    bool odd_quotes = false, starts_odd = false;
  };

  /// "name:line:column: " of a place in the text.
  [[gnu::cold]] std::string place_of(std::size_t at) const {
    const auto begin = text_.substr(0, 3) == "\xEF\xBB\xBF" ? std::size_t{3} : 0;
    const auto before = text_.substr(begin, at - begin);
    const auto line = std::count(before.begin(), before.end(), line_end_) + 1;
    const auto last = before.rfind(line_end_);
    const auto column = before.size() - (last == before.npos ? 0 : last + 1) + 1;
    return dpsgd::text(name_, ':', line, ':', column, ": ");
  }

  std::string_view body_of(std::size_t b) const {
    const auto begin = std::clamp(b * digest_block, body_begin_, body_end_);
    return text_.substr(begin, std::clamp((b + 1) * digest_block, body_begin_, body_end_) - begin);
  }

  void count(const char* begin, const char* end, block_ends& out) const {
    if (!std::memchr(begin, '"', static_cast<std::size_t>(end - begin))) {
      out.ends[0] = count_byte(begin, end, line_end_);
      return;
    }
    bool odd = false;
    for (; begin != end; ++begin) {
      odd ^= *begin == '"';
      out.ends[odd] += *begin == line_end_;
    }
    out.odd_quotes = odd;
  }

  [[gnu::cold]] void read_header() {
    require(!text_.empty(), name_, " is empty: expected a header line and records");
    std::size_t at = text_.substr(0, 3) == "\xEF\xBB\xBF" ? 3 : 0;
    for (bool more = true; more;) {
      std::string field;
      const auto from = at;
      if (at < text_.size() && text_[at] == '"') {
        for (++at;; ++at) {
          if (at == text_.size()) fail_at(from, "the header has a quote that is never closed");
          if (text_[at] == '"') {
            ++at;  // the closing quote, unless it is doubled
            if (at == text_.size() || text_[at] != '"') break;
          }
          field += text_[at];
        }
      } else {
        while (at < text_.size() && text_[at] != ',' && text_[at] != '\n' && text_[at] != '\r' && text_[at] != '"')
          field += text_[at++];
        const auto first = field.find_first_not_of(" \t");
        field = first == field.npos ? "" : field.substr(first, field.find_last_not_of(" \t") + 1 - first);
      }
      header_.push_back(field);
      more = at < text_.size() && text_[at] == ',';
      if (more) ++at;
      else if (at < text_.size() && text_[at] != '\n' && text_[at] != '\r')
        fail_at(at, "the header has a quote inside the field ", shown(text_.substr(from, at - from + 1)));
    }
    if (at < text_.size() && text_[at] == '\r' && (at + 1 == text_.size() || text_[at + 1] != '\n')) line_end_ = '\r';
    at += text_.substr(at, 2) == "\r\n" ? 2 : at < text_.size();
    body_begin_ = at;
    body_end_ = text_.size();  // without the line ends at the end of the text
    while (body_end_ > body_begin_ && (text_[body_end_ - 1] == '\n' || text_[body_end_ - 1] == '\r')) --body_end_;
    const auto rest = text_.substr(body_end_, 2);
    after_body_ = rest.substr(0, 1) == std::string_view(&line_end_, 1) ? 1 : rest == "\r\n" ? 2 : 0;
  }

  std::string_view text_;
  std::string name_;
  std::vector<std::string> header_;
  char line_end_ = '\n';
  std::size_t body_begin_ = 0, body_end_ = 0, after_body_ = 0;  // after_body_: bytes of the last record's line end
  std::vector<block_ends> blocks_;
  std::uint64_t records_ = 0;
  data_digest digest_;
};

/// A plain number at p: a sign or none, digits, with or without a decimal point; up to 15 digits, so that the integer
/// of all digits and the power of ten are exact in a double and the quotient is the nearest double. Returns where it
/// ends, or null: then the general parser is asked.
inline const char* plain_number(const char* p, double& value) {
  static constexpr double power[16] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                       1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
  const bool negative = *p == '-';
  p += negative;
  std::uint64_t all = 0;
  const auto digits = [&] {
    const char* const from = p;
    for (unsigned d; (d = static_cast<unsigned>(*p) - '0') <= 9; ++p) all = 10 * all + d;
    return p - from;
  };
  auto count = digits();
  std::ptrdiff_t fraction = 0;
  if (*p == '.') ++p, count += fraction = digits();
  if (count == 0 || count > 15) return nullptr;
  value = static_cast<double>(all);
  if (fraction) value /= power[fraction];
  if (negative) value = -value;
  return p;
}

/// Pass 2: records, one after the other. The text handed to `row` ends with the line end of its last record.
class csv_rows {
 public:
  /// Throws when a column of the schema is not in the file exactly once.
  [[gnu::cold]] csv_rows(const csv_text& csv, const schema& columns, dpsgd::bad_rows policy, bool labels = true)
      : line_end_(csv.line_end()), policy_(policy) {
    for (const auto& name : csv.header()) header_names_ += (header_names_.empty() ? "" : ", ") + shown(name);
    plan_.resize(csv.header().size());
    const auto place = [&](const std::string& name) -> destination& {
      const auto found = std::find(csv.header().begin(), csv.header().end(), name);
      if (found == csv.header().end())
        csv.fail_at(0, "the file has no column \"", name, "\" that the schema asks for; its columns are ",
                    header_names_);
      if (std::find(found + 1, csv.header().end(), name) != csv.header().end())
        csv.fail_at(0, "the header names column \"", name, "\" twice, and the schema asks for it");
      return plan_[static_cast<std::size_t>(found - csv.header().begin())];
    };
    label_ = &columns.the_label();
    if (labels) place(label_->name()).use = destination::label;
    if (labels && !columns.owner().empty()) owner_ = static_cast<std::size_t>(&place(columns.owner()) - plan_.data());
    std::size_t offset = 0;
    for (const auto& column : columns.columns()) {
      place(column.name()) = {destination::feature, &column, offset};
      offset += column.width();
    }
    for (const char c : {',', '"', line_end_}) stops_[static_cast<unsigned char>(c)] = true;
  }

  /// bad: the row may be dropped. broken: its quotes are wrong, so nobody knows where the next row begins.
  enum class outcome { good, bad, broken };

  /// Parses the row at p into features and label, and moves p behind it (if bad: only where rows are to be dropped).
  outcome row(const char*& p, const char* end, float* features, float* label) {
    const std::size_t last = plan_.size() - 1;
    for (std::size_t c = 0;; ++c) {
      const auto& target = plan_[c];
      const char* const from = p;
      if (target.use == destination::nowhere) {
        if (const auto wrong = skip_field(p, end); wrong != what::nothing) return broken(wrong, from, c);
      } else {
        double value;
        p = plain_number(from, value);
        if (!p || !at_end(p)) {
          p = from;
          bool missing = false;
          if (const auto wrong = general_field(p, end, value, missing); wrong != what::nothing)
            return broken(wrong, from, c);
          if (missing) {
            if (target.use == destination::label || !target.column->missing())
              return bad(what::missing, from, c, p, end);
            value = *target.column->missing();
          }
          if (std::isnan(value)) return bad(what::no_number, from, c, p, end);
        }
        if (!(target.use == destination::label ? label_->accepts(value) : target.column->accepts(value)))
          return bad(what::refused, from, c, p, end);
        if (target.use == destination::label) *label = label_->encode(value);
        else target.column->encode(value, features + target.offset);
      }
      if (c == last) break;
      if (*p != ',') return bad(what::too_few, p, c, p, end);
      ++p;
    }
    if (*p == ',') return bad(what::too_many, p + 1, last, p, end);
    next_line(p);
    return outcome::good;
  }

  /// Whether rows have owners, and whose the row at p is: the text of its field, "" where that is missing. Moves p
  /// behind the row.
  bool has_owners() const { return owner_ < plan_.size(); }
  outcome owner(const char*& p, const char* end, std::string_view& text) {
    text = {};
    for (std::size_t c = 0;; ++c) {
      const char* const from = p;
      if (const auto wrong = skip_field(p, end); wrong != what::nothing)
        return broken(wrong, from, std::min(c, plan_.size() - 1));
      if (c == owner_) text = trimmed(from, p);
      if (*p != ',') break;
      ++p;
    }
    next_line(p);
    return outcome::good;
  }
  /// Makes that the flaw: a row of nobody.
  void no_owner(const char* row) { flaw_ = {what::no_owner, row, owner_}; }

  /// Where the flaw of the last bad or broken row is, and what it is; `at` is that place in csv.text().
  const char* flaw_at() const { return flaw_.at; }
  [[noreturn, gnu::cold]] void throw_flaw(const csv_text& csv, std::size_t at) const {
    const auto column = "column \"" + csv.header()[flaw_.field] + "\": ";
    const auto& target = plan_[flaw_.field];
    const auto field = shown(field_at(csv.text().substr(at)));
    switch (flaw_.kind) {
      case what::missing:
        csv.fail_at(at, column, "the ", target.use == destination::label ? "label" : "value", " is missing (", field,
                    "); ", target.use == destination::label ? "" : "give the column a public default (.missing), or ",
                    "drop such rows (bad_rows::drop)");
      case what::no_owner:
        csv.fail_at(at, column, "this row names no owner; drop such rows (bad_rows::drop)");
      case what::refused:
        csv.fail_at(at, column, field, " is not ",
                    target.use == destination::label ? label_->expected() : target.column->expected());
      case what::too_few:
        csv.fail_at(at, "the row ends after ", flaw_.field + 1, " fields; the header has ", plan_.size());
      case what::too_many:
        csv.fail_at(at, "the row goes on after ", plan_.size(), " fields, as many as the header has, with ", field);
      case what::stray_quote:
        csv.fail_at(at, "a quote inside the field ", field, "; quote the whole field and double the quotes in it");
      case what::open_quote:
        csv.fail_at(at, "the quote of the field ", field, " is never closed");
      default:
        csv.fail_at(at, column, field, " is not a finite number");
    }
  }

 private:
  enum class what { nothing, no_number, missing, no_owner, refused, too_few, too_many, stray_quote, open_quote };
  struct flaw {
    what kind = what::nothing;
    const char* at = nullptr;
    std::size_t field = 0;
  };
  struct destination {  // where a column of the file goes
    enum { nowhere, feature, label } use = nowhere;
    const feature_column* column = nullptr;
    std::size_t offset = 0;
  };

  /// Whether a field ends at p.
  bool at_end(const char* p) const {
    return *p == ',' || *p == line_end_ || (*p == '\r' && line_end_ == '\n' && p[1] == '\n');
  }

  void next_line(const char*& p) const { p += *p == '\r' && line_end_ == '\n' ? 2 : 1; }

  /// p: from the start of a field to its end. What is wrong with its quotes, or nothing.
  what skip_field(const char*& p, const char* end) const {
    const char* const from = p;
    if (*p != '"') {
      while (!stops_[static_cast<unsigned char>(*p)]) ++p;
      if (*p == '"') return what::stray_quote;
      if (*p == '\n' && p != from && p[-1] == '\r') --p;  // CRLF
      return what::nothing;
    }
    do {  // after a doubled quote the next stretch begins at once
      p = static_cast<const char*>(std::memchr(p + 1, '"', static_cast<std::size_t>(end - p - 1)));
      if (!p) return what::open_quote;
      ++p;
    } while (*p == '"');
    return at_end(p) ? what::nothing : what::stray_quote;
  }

  /// What stands between a field's ends, without quotes and blanks around it; "" where it is missing.
  static std::string_view trimmed(const char* from, const char* to) {
    if (*from == '"') ++from, --to;
    while (from != to && (*from == ' ' || *from == '\t')) ++from;
    while (from != to && (to[-1] == ' ' || to[-1] == '\t')) --to;
    const std::string_view field(from, static_cast<std::size_t>(to - from));
    return field == "NA" ? field.substr(0, 0) : field;
  }

  /// p: from the start of a field to its end, and the field's value; NaN if that is not a finite number.
  what general_field(const char*& p, const char* end, double& value, bool& missing) const {
    const char* from = p;
    if (const auto wrong = skip_field(p, end); wrong != what::nothing) return wrong;
    const auto field = trimmed(from, p);
    missing = field.empty();
    from = field.data();
    const char* const to = from + field.size();
    if (missing || plain_number(from, value) == to) return what::nothing;
    if (*from == '+' && from + 1 != to && from[1] != '-') ++from;  // from_chars takes no plus
    const auto [rest, problem] = std::from_chars(from, to, value);
    if (problem != std::errc{} || rest != to || !std::isfinite(value)) value = NAN;
    return what::nothing;
  }

  /// A flaw in field c of the row; p stands at or behind it. Where rows are dropped, goes on to the next row.
  outcome bad(what kind, const char* at, std::size_t c, const char*& p, const char* end) {
    flaw_ = {kind, at, c};
    if (policy_ == dpsgd::bad_rows::error) return outcome::bad;
    while (*p == ',') {
      const char* const from = ++p;
      if (const auto wrong = skip_field(p, end); wrong != what::nothing) return broken(wrong, from, c);
    }
    next_line(p);
    return outcome::bad;
  }
  outcome broken(what kind, const char* at, std::size_t c) {
    flaw_ = {kind, at, c};
    return outcome::broken;
  }

  /// The field at the beginning of `rest`, as it stands there.
  [[gnu::cold]] static std::string_view field_at(std::string_view rest) {
    const bool quoted = rest.substr(0, 1) == "\"";
    bool open = false;
    for (std::size_t i = 0; i < rest.size(); ++i) {
      open ^= quoted && rest[i] == '"';
      if (!open && (rest[i] == ',' || rest[i] == '\n' || rest[i] == '\r')) return rest.substr(0, i);
    }
    return rest;
  }

  char line_end_;
  dpsgd::bad_rows policy_;
  std::vector<destination> plan_;  // of each column of the file
  std::size_t owner_ = static_cast<std::size_t>(-1);
  const label_column* label_;
  std::string header_names_;
  std::array<bool, 256> stops_{};
  flaw flaw_;
};

/// The records among [first, first + rows) that are not among the first of their owner's in the whole text, or have
/// none. One pass over the text up to there, on every rank: whose rows come first must not depend on how many read it.
/// Memory: some 60 bytes an owner.
[[gnu::cold]] inline std::vector<std::uint64_t> rows_beyond_owners(const csv_text& csv, csv_rows parser,
                                                                   const schema& columns, std::uint64_t first,
                                                                   std::uint64_t rows, dpsgd::bad_rows policy,
                                                                   const std::array<std::string_view, 2>& lines) {
  std::unordered_map<std::string_view, int> seen;
  std::vector<std::uint64_t> beyond;
  std::uint64_t r = 0;
  for (const auto& piece : lines) {  // whole records, each with its line end
    const char *p = piece.data(), *const end = p + piece.size();
    for (; p != end && r < first + rows; ++r) {
      const char* const row = p;
      std::string_view owner;
      if (parser.owner(p, end, owner) == csv_rows::outcome::broken)
        parser.throw_flaw(csv, csv.start(r) + static_cast<std::size_t>(parser.flaw_at() - row));
      const bool counts = !owner.empty();
      if (!counts && policy == bad_rows::error && r >= first) {
        parser.no_owner(row);
        parser.throw_flaw(csv, csv.start(r));
      }
      if ((!counts || ++seen[owner] > columns.rows_per_owner()) && r >= first) beyond.push_back(r);
    }
  }
  return beyond;
}

/// `file` is where the text stands, or null when it is in memory anyway.
inline dataset read_csv_text(std::string_view text, const std::string& name, const schema& columns,
                             const csv_options& options, const file_bytes* file) {
  const auto forget = [file](const char* begin, const char* end) {
    if (file) file->done_with(begin, end);
  };
  require(options.threads >= 1, "reading takes at least one thread; got ", options.threads);
  require(options.parts >= 1 && options.part >= 0 && options.part < options.parts, "part ", options.part, " of ",
          options.parts, " parts: expected 0 <= part < parts");
  csv_text csv(text, name);
  const csv_rows parser(csv, columns, options.bad_rows, options.labels);
  csv.index(options.threads, forget);
  const auto all = csv.records();
  require(all > 0, name, " has a header and no records");
  require(static_cast<std::uint64_t>(options.parts) <= all, "more ranks than records: ", options.parts, " parts of ",
          name, ", which has ", all, " records");
  const auto cut = [](std::uint64_t n, int k, int of) {  // where piece k of n rows begins
    const auto piece = static_cast<std::uint64_t>(k), pieces = static_cast<std::uint64_t>(of);
    return n / pieces * piece + n % pieces * piece / pieces;
  };
  const auto first = cut(all, options.part, options.parts), rows = cut(all, options.part + 1, options.parts) - first;

  dataset::contents c;
  c.width = columns.width();
  c.features = float_array(rows * c.width), c.labels = float_array(rows);
  if (!options.labels) std::fill_n(c.labels.data(), rows, 0.0f);
  c.universe = all, c.first = first, c.rows = rows;
  c.kind = columns.label_kind(), c.classes = columns.classes();
  if (parser.has_owners()) {
    c.rows_per_owner = columns.rows_per_owner();
    c.owners = owners_number(columns.owner());
  }
  c.digest = csv.digest();

  // The last record, with the line end that the file may lack.
  std::string last;
  const auto last_at = csv.start(all - 1);
  if (!csv.ends_with_line_end()) last.append(text.substr(last_at)) += csv.line_end();
  if (!csv.ends_with_line_end() && last.size() > 1 && last[last.size() - 2] == '\r') last.erase(last.size() - 2, 1);

  std::vector<std::vector<std::uint64_t>> dropped(static_cast<std::size_t>(options.threads));
  in_parallel(options.threads, [&](int t) {
    auto mine = parser;
    // Rows [r, end_row) from `piece`, which stands at `at` in the text (or is a copy of what does).
    const auto parse = [&](std::string_view piece, std::size_t at, std::uint64_t r, std::uint64_t end_row) {
      const char *p = piece.data(), *const end = p + piece.size(), *forgotten = p;
      for (; r < end_row; ++r) {
        const auto local = r - first;
        const auto outcome = mine.row(p, end, c.features.data() + local * c.width, c.labels.data() + local);
        if (outcome != csv_rows::outcome::good) [[unlikely]] {
          if (outcome == csv_rows::outcome::broken || options.bad_rows == bad_rows::error)
            mine.throw_flaw(csv, at + static_cast<std::size_t>(mine.flaw_at() - piece.data()));
          dropped[static_cast<std::size_t>(t)].push_back(r);
        }
        if (p - forgotten >= 1 << 20 && piece.data() != last.data()) forget(forgotten, p), forgotten = p;
      }
    };
    const auto begin = first + cut(rows, t, options.threads), end = first + cut(rows, t + 1, options.threads);
    if (begin == end) return;
    const bool closed = end < all || last.empty();  // else the last row comes from its copy
    const auto from = csv.start(begin), to = closed ? csv.start(end) : last_at;
    parse(text.substr(from, to - from), from, begin, closed ? end : all - 1);
    if (!closed) parse(last, last_at, all - 1, all);
  });

  std::vector<std::uint64_t> gaps;
  for (const auto& rows_of : dropped) gaps.insert(gaps.end(), rows_of.begin(), rows_of.end());
  if (parser.has_owners()) {
    const auto begin = csv.start(0);
    const auto beyond = rows_beyond_owners(
        csv, parser, columns, first, rows, options.bad_rows,
        std::array{text.substr(begin, (last.empty() ? csv.start(all) : last_at) - begin), std::string_view(last)});
    std::vector<std::uint64_t> both;
    std::set_union(gaps.begin(), gaps.end(), beyond.begin(), beyond.end(), std::back_inserter(both));
    gaps = std::move(both);
  }
  c.positions = position_set::range(first, rows);
  if (gaps.empty()) return dataset(std::move(c));

  // Close the gaps: every stretch of good rows moves up by the bad rows before it.
  std::vector<std::uint64_t> bits((all + 63) / 64);
  gaps.push_back(first + rows);
  std::uint64_t from = first, to = 0;
  for (const auto gap : gaps) {
    const auto count = gap - from;
    std::memmove(c.features.data() + to * c.width, c.features.data() + (from - first) * c.width,
                 count * c.width * sizeof(float));
    std::memmove(c.labels.data() + to, c.labels.data() + (from - first), count * sizeof(float));
    for (auto q = from; q < gap; ++q) bits[q / 64] |= std::uint64_t{1} << q % 64;
    to += count, from = gap + 1;
  }
  c.positions = position_set::of_bits(std::move(bits));
  return dataset(std::move(c));
}

}  // namespace detail

/// Reads a CSV text that is in memory; `name` stands in the messages. Everything else as read_csv.
inline dataset parse_csv(std::string_view text, const schema& columns, const csv_options& options = {},
                         const std::string& name = "text") {
  return detail::read_csv_text(text, name, columns, options, nullptr);
}

/// Reads a CSV file. A schema column is found in the header by its name; the file's other columns are ignored.
/// Throws dpsgd::error "path:line:column: what is wrong, with the field" for the first bad row; columns count bytes
/// from 1 and point at the field. Wrong quotes are an error even where bad rows are dropped, since they leave unclear
/// where rows end. Memory: the matrix and a few MiB. The file must not shrink meanwhile (SIGBUS).
inline dataset read_csv(const std::string& path, const schema& columns, const csv_options& options = {}) {
  const detail::file_bytes file(path);
  return detail::read_csv_text(file.text(), path, columns, options, &file);
}

}  // namespace dpsgd
