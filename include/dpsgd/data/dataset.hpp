/// Records as a trainer wants them: a row-major matrix of features, a label each, and where each record stood.
///
/// A record is known by its *position*: its row number in the file, counted before any row is dropped. Split and
/// sampling look at positions only, so what happens to one record never depends on another one (docs/privacy.md).
///   universe()  all positions there are: the rows of the file (public)
///   all()       the positions of this part, the training split say, dropped rows included (public)
///   records()   the rows held here: of this part, of this shard, not dropped (not private)
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dpsgd/core/digest.hpp"
#include "dpsgd/core/error.hpp"
#include "dpsgd/core/random.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/data/schema.hpp"

namespace dpsgd {

namespace detail {

struct release_floats {
  std::size_t mapped = 0;  // bytes; 0: from the heap
  void operator()(float* memory) const {
    if (mapped) ::munmap(memory, mapped);
    else std::free(memory);
  }
};

/// dataset::owners() of owners by this name, which is public: the number stands in ledgers and checkpoints. Never 0.
inline std::uint32_t owners_number(std::string_view name) {
  return std::max(std::uint32_t{1}, static_cast<std::uint32_t>(digest_of(name.data(), name.size()).low));
}

}  // namespace detail

/// An uninitialised array of floats on a 64-byte boundary. A big one comes straight from the system and goes straight
/// back when it is freed, where malloc would keep it. (Not on huge pages: measured on a virtual machine, filling a
/// matrix of 143 MiB then took from 0.02 to 0.35 s, without them 0.06 s each time; a gather of rows gains little.)
class float_array {
 public:
  float_array() = default;
  explicit float_array(std::size_t size) {
    require(size < (std::size_t{1} << 60), "too many floats for one array: ", size);
    const std::size_t bytes = size ? (size * sizeof(float) + 63) / 64 * 64 : 64;
    if (bytes < (std::size_t{1} << 20)) {
      data_ = {static_cast<float*>(std::aligned_alloc(64, bytes)), {}};
      if (!data_) throw std::bad_alloc();
    } else {
      void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory == MAP_FAILED) throw std::bad_alloc();
      data_ = {static_cast<float*>(memory), {bytes}};
    }
  }
  float* data() const { return data_.get(); }

 private:
  std::unique_ptr<float, detail::release_floats> data_;
};

/// An ascending set of positions: a range, or one bit for each position with running counts (1.5 bits a position).
/// The i-th position of the set belongs to record i.
class position_set {
 public:
  /// The positions [first, first + count): needs no table.
  static position_set range(std::uint64_t first, std::size_t count) {
    position_set set;
    set.first_ = first, set.size_ = count;
    return set;
  }

  /// The positions whose bit is set: position p is bit p % 64 of bits[p / 64].
  [[gnu::cold]] static position_set of_bits(std::vector<std::uint64_t> bits) {
    position_set set;
    set.before_.reserve(bits.size());
    for (const auto word : bits) {
      require(set.size_ < (std::size_t{1} << 32) - 64, "a set of positions with gaps holds fewer than 2^32 of them");
      set.before_.push_back(static_cast<std::uint32_t>(set.size_));
      set.size_ += static_cast<std::size_t>(std::popcount(word));
    }
    set.bits_ = std::move(bits);
    return set;
  }

  std::size_t size() const { return size_; }

  /// The number of the record at this position, or -1. O(1).
  std::int64_t find(std::uint64_t position) const {
    if (bits_.empty()) return position - first_ < size_ ? static_cast<std::int64_t>(position - first_) : -1;
    const auto word = position / 64;
    if (word >= bits_.size() || !(bits_[word] >> position % 64 & 1)) return -1;
    return before_[word] + std::popcount(bits_[word] & ((std::uint64_t{1} << position % 64) - 1));
  }

  /// The position of record i < size(). O(1) for a range, else O(log universe).
  std::uint64_t operator[](std::size_t i) const {
    if (bits_.empty()) return first_ + i;
    std::size_t low = 0, high = bits_.size();  // the last word with before_ <= i
    while (high - low > 1) {
      const auto middle = (low + high) / 2;
      (before_[middle] <= i ? low : high) = middle;
    }
    auto word = bits_[low];
    for (auto skip = i - before_[low]; skip > 0; --skip) word &= word - 1;
    return low * 64 + static_cast<std::uint64_t>(std::countr_zero(word));
  }

 private:
  std::uint64_t first_ = 0;
  std::size_t size_ = 0;
  std::vector<std::uint64_t> bits_;    // empty: a range
  std::vector<std::uint32_t> before_;  // of each word: the set positions in the words before it
};

struct split_options;
struct train_test;

/// Records in memory. Copying is cheap (the floats are shared and never change), so ranks that are threads take one
/// each.
class dataset {
 public:
  /// What a reader hands over. Row r of features and labels belongs to positions[r].
  struct contents {
    float_array features, labels;  // (records, width), (records)
    std::size_t width = 0;
    position_set positions;             // of the records
    std::uint64_t universe = 0;         // rows of the whole file
    std::uint64_t first = 0, rows = 0;  // the range of the file that was read
    int rows_per_owner = 1;             // that anybody has at most
    std::uint32_t owners = 0;           // who these are
    dpsgd::label_kind kind = dpsgd::label_kind::two_classes;
    int classes = 2;
    data_digest digest;
  };

  /// No records.
  dataset() = default;

  explicit dataset(contents&& c)
      : width_(c.width),
        count_(c.positions.size()),
        universe_(c.universe),
        all_(c.universe),
        first_(c.first),
        rows_(c.rows),
        dropped_(c.rows - c.positions.size()),
        kind_(c.kind),
        classes_(c.classes),
        rows_per_owner_(c.rows_per_owner),
        owners_(c.owners),
        digest_(c.digest) {
    require(count_ <= rows_ && rows_ <= universe_, "a dataset holds more records than the file has rows");
    positions_ = std::make_shared<position_set>(std::move(c.positions));
    features_ = c.features.data(), labels_ = c.labels.data();
    owned_ = std::make_shared<owned>(owned{std::move(c.features), std::move(c.labels)});
  }

  /// A copy of the user's own floats: features (records, width) row-major, one label each: 0 or 1; a class in
  /// [0, classes); or any real number. Throws when sizes disagree, a number is not finite or a label is no class.
  static dataset from(std::span<const float> features, std::size_t width, std::span<const float> labels,
                      dpsgd::label_kind kind = dpsgd::label_kind::two_classes, int classes = 2) {
    contents c = checked(features, width, labels, kind, classes);
    c.features = float_array(features.size()), c.labels = float_array(labels.size());
    if (!labels.empty()) {
      std::memcpy(c.features.data(), features.data(), features.size_bytes());
      std::memcpy(c.labels.data(), labels.data(), labels.size_bytes());
    }
    return dataset(std::move(c));
  }

  /// As `from`, without a copy: the floats must stay where they are, unchanged, as long as any copy of the dataset
  /// lives.
  static dataset view(std::span<const float> features, std::size_t width, std::span<const float> labels,
                      dpsgd::label_kind kind = dpsgd::label_kind::two_classes, int classes = 2) {
    dataset data(checked(features, width, labels, kind, classes));
    data.owned_ = nullptr;
    data.features_ = features.data(), data.labels_ = labels.data();
    return data;
  }

  /// The first `rows` records of each owner; the others are dropped, and keep their positions. owners: a number for each
  /// record, whose it is; who: what owners are, in a word that is public ("person"): claims about different ones do not
  /// add up. Before any split or shard: whose rows come first is a matter of the whole file. (A reader of
  /// files does this by schema::owner.) Throws when sizes disagree, rows is not in 1 .. 64, or it is too late.
  [[gnu::cold]] dataset by_owner(std::span<const std::uint64_t> owners, int rows,
                                 std::string_view who = "owner") const {
    require(rows >= 1 && rows <= 64, "an owner may have 1 to 64 rows; got ", rows);
    require(owners.size() == count_, "there are ", count_, " records, but owners of ", owners.size());
    require(!members_ && rows_ == universe_ && rows_per_owner_ == 1,
            "owners are bounded once, in the whole data set, before it is split or cut into shards");
    std::unordered_map<std::uint64_t, int> seen;
    std::vector<std::uint64_t> kept((universe_ + 63) / 64);
    contents c;
    c.features = float_array(count_ * width_), c.labels = float_array(count_);
    std::size_t to = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      if (++seen[owners[i]] > rows) continue;
      std::memcpy(c.features.data() + to * width_, features_ + i * width_, width_ * sizeof(float));
      c.labels.data()[to++] = labels_[i];
      const auto p = position(i);
      kept[p / 64] |= std::uint64_t{1} << p % 64;
    }
    c.positions = position_set::of_bits(std::move(kept));
    c.width = width_, c.universe = c.rows = universe_;
    c.rows_per_owner = rows, c.owners = detail::owners_number(who), c.kind = kind_, c.classes = classes_,
    c.digest = digest_;
    return dataset(std::move(c));
  }

  std::size_t records() const { return count_; }
  std::size_t width() const { return width_; }
  /// (records, width), row-major without gaps: a gather is data + row * width.
  matrix_view<const float> features() const { return {features_, count_, width_, width_}; }
  /// (records): 0 or 1, the class, or the scaled target.
  std::span<const float> labels() const { return {labels_, count_}; }
  dpsgd::label_kind label_kind() const { return kind_; }
  /// The number of classes; 1 for regression.
  int classes() const { return classes_; }

  /// The rows of the file, dropped ones included: the positions are [0, universe()). Public; the same on all ranks.
  std::uint64_t universe() const { return universe_; }
  /// The positions that belong to this part (all of them, or one side of a split), on any rank, dropped rows included.
  /// Public: the N of sampling and of delta. A shard keeps its dataset's.
  std::uint64_t all() const { return all_; }
  /// How many of the records anybody has at most: what a claim protects is that many together. Public.
  int rows_per_owner() const { return rows_per_owner_; }
  /// Who these owners are: a number of the name of their column, or of the word that by_owner was given. 0: each row is
  /// its own. Claims about different owners do not add up. Public.
  std::uint32_t owners() const { return owners_; }
  /// Rows of this part that were read here and dropped; over the shards it adds up. Not private.
  std::uint64_t dropped() const { return dropped_; }

  /// The record at this position, or -1: another part's or rank's, or dropped. O(1).
  std::int64_t locate(std::uint64_t position) const {
    const auto record = positions_->find(position) - static_cast<std::int64_t>(skip_);
    return record >= 0 && record < static_cast<std::int64_t>(count_) ? record : -1;
  }
  /// The position of record i < records(): ascending in i. O(1) when no row is missing, else O(log universe).
  std::uint64_t position(std::size_t i) const { return (*positions_)[skip_ + i]; }
  /// All positions, ascending. O(records).
  std::vector<std::uint64_t> positions() const {
    std::vector<std::uint64_t> list(count_);
    for (std::size_t i = 0; i < count_; ++i) list[i] = position(i);
    return list;
  }

  /// Of the file's bytes (or of the user's floats): which data this is, whatever part, shard or number of threads.
  data_digest digest() const { return digest_; }

  friend train_test split(dataset data, const split_options& options);
  friend dataset shard_of(const dataset& data, std::size_t rank, std::size_t size);

 private:
  struct owned {
    float_array features, labels;
  };

  static contents checked(std::span<const float> features, std::size_t width, std::span<const float> labels,
                          dpsgd::label_kind kind, int classes) {
    const auto records = labels.size();
    require(width > 0, "a dataset needs at least one feature");
    require(features.size() / width == records && features.size() % width == 0,
            "features and labels disagree: ", features.size(), " floats are not ", records, " rows (one a label) of ",
            width);
    if (kind == dpsgd::label_kind::two_classes) require(classes == 2, "two classes are not ", classes);
    if (kind == dpsgd::label_kind::regression) classes = 1;
    require(kind == dpsgd::label_kind::regression || classes >= 2, "a label needs at least 2 classes; got ", classes);
    for (std::size_t i = 0; i < features.size(); ++i)
      if (!std::isfinite(features[i]))
        fail("feature ", i % width, " of row ", i / width, " (both counted from 0) is ", features[i],
             "; features must be finite");
    for (std::size_t i = 0; i < records; ++i)
      if (kind == dpsgd::label_kind::regression
              ? !std::isfinite(labels[i])
              : !(labels[i] >= 0 && labels[i] < static_cast<float>(classes) && labels[i] == std::floor(labels[i])))
        fail("the label of row ", i, " (counted from 0) is ", labels[i], "; expected ",
             kind == dpsgd::label_kind::regression ? "a finite number" : "a class, counted from 0, below ",
             kind == dpsgd::label_kind::regression ? text("") : text(classes));
    contents c;
    c.width = width, c.kind = kind, c.classes = classes;
    c.universe = c.rows = records;
    c.positions = position_set::range(0, records);
    const data_digest parts[3] = {digest_of(features.data(), features.size_bytes()),
                                  digest_of(labels.data(), labels.size_bytes()),
                                  {width, static_cast<std::uint64_t>(classes)}};
    c.digest = digest_of(parts, sizeof parts);
    return c;
  }

  const float *features_ = nullptr, *labels_ = nullptr;
  std::shared_ptr<owned> owned_;  // null: the user's memory
  std::shared_ptr<const position_set> positions_ = std::make_shared<position_set>();
  std::shared_ptr<const std::vector<std::uint64_t>> members_;  // a bit for each position of this part; null: all
  std::size_t width_ = 0, count_ = 0, skip_ = 0;  // skip_: records of positions_ that lie before this shard
  std::uint64_t universe_ = 0, all_ = 0, first_ = 0, rows_ = 0, dropped_ = 0;
  dpsgd::label_kind kind_ = dpsgd::label_kind::two_classes;
  int classes_ = 2, rows_per_owner_ = 1;
  std::uint32_t owners_ = 0;
  unsigned depth_ = 0;  // splits so far: each draws from a stream of its own
  data_digest digest_;
};

/// How to split. The seed is public: it fixes who is in the test set, and costs no privacy.
struct split_options {
  double test_fraction = 0.2;
  std::uint64_t seed = 1;
};

/// The two sides of a split.
struct train_test {
  dataset train, test;
};

namespace detail {

/// One bit for each position: whether it belongs to the test set. Position p goes by word p of the stream (key, split,
/// depth): it belongs when the word is below fraction * 2^32. Four ChaCha blocks at once; 2 ns a position.
inline std::vector<std::uint64_t> draw_split(std::uint64_t universe, const split_options& options, unsigned depth) {
  typedef std::uint32_t lanes __attribute__((vector_size(16)));
  const random_stream stream{random_key::from_seed(options.seed), domain::split, depth, 0};
  const auto limit = static_cast<std::uint64_t>(std::llround(options.test_fraction * 0x1p32));
  std::vector<std::uint64_t> bits((universe + 63) / 64);
  for (std::size_t w = 0; w < bits.size(); ++w) {  // 64 positions are 4 blocks
    const auto block = static_cast<std::uint32_t>(4 * w);
    auto words = stream.state(lanes{block, block + 1, block + 2, block + 3});
    chacha20_block(words);
    for (unsigned k = 0; k < 64; ++k) bits[w] |= static_cast<std::uint64_t>(words[k % 16][k / 16] < limit) << k;
  }
  if (universe % 64) bits.back() &= (std::uint64_t{1} << universe % 64) - 1;
  return bits;
}

/// The set bits among positions [first, last).
inline std::uint64_t count_bits(const std::vector<std::uint64_t>& bits, std::uint64_t first, std::uint64_t last) {
  std::uint64_t count = 0;
  for (auto p = first; p < last;) {
    const auto n = 64 - p % 64 < last - p ? 64 - p % 64 : last - p;  // bits of this word
    const auto mask = n == 64 ? ~std::uint64_t{0} : ((std::uint64_t{1} << n) - 1) << p % 64;
    count += static_cast<std::uint64_t>(std::popcount(bits[p / 64] & mask));
    p += n;
  }
  return count;
}

}  // namespace detail

/// Splits by a keyed hash of each record's position: dropping, adding or changing one row moves no other, and every
/// reader of a part of the file agrees. Each side has all() positions, about the fraction asked for (binomial).
///
/// When the dataset is moved in and nobody else shares it, its rows are rearranged where they are: the only extra
/// memory is a copy of the test rows while it works. Throws when test_fraction is not in [0, 1).
[[gnu::cold]] inline train_test split(dataset data, const split_options& options = {}) {
  require(options.test_fraction >= 0 && options.test_fraction < 1, "the test fraction must lie in [0, 1); got ",
          options.test_fraction);
  require(data.universe_ <= std::uint64_t{1} << 36, "more than 2^36 rows cannot be split");
  auto in_test = detail::draw_split(data.universe_, options, data.depth_);
  std::vector<std::uint64_t> in_train(in_test.size());
  for (std::size_t w = 0; w < in_test.size(); ++w) {
    auto members = data.members_ ? (*data.members_)[w] : ~std::uint64_t{0};
    if (!data.members_ && w == in_test.size() - 1 && data.universe_ % 64)
      members = (std::uint64_t{1} << data.universe_ % 64) - 1;
    in_train[w] = members & ~in_test[w];
    in_test[w] &= members;
  }

  std::vector<std::uint64_t> present(in_test.size());  // the positions of records
  for (std::size_t w = 0; w < present.size(); ++w)
    for (auto left = in_train[w] | in_test[w]; left; left &= left - 1)
      if (data.locate(64 * w + static_cast<std::uint64_t>(std::countr_zero(left))) >= 0) present[w] |= left & -left;

  train_test parts{data, data};
  const auto fill = [&](dataset& part, std::vector<std::uint64_t>& members) {
    part.all_ = detail::count_bits(members, 0, data.universe_);
    part.dropped_ = detail::count_bits(members, data.first_, data.first_ + data.rows_);
    part.members_ = std::make_shared<const std::vector<std::uint64_t>>(members);
    for (std::size_t w = 0; w < members.size(); ++w) members[w] &= present[w];
    part.positions_ = std::make_shared<position_set>(position_set::of_bits(members));
    part.count_ = part.positions_->size();
    part.dropped_ -= part.count_;
    part.skip_ = 0;
    part.depth_ = data.depth_ + 1;
  };
  fill(parts.train, in_train);  // from here on in_train and in_test hold records only
  fill(parts.test, in_test);

  // Rows of the training side close up towards the front, test rows go to a buffer and then behind them.
  const std::size_t n = data.count_, width = data.width_, n_train = parts.train.count_, n_test = parts.test.count_;
  parts.train.owned_ = parts.test.owned_ = nullptr;
  const bool in_place = data.owned_.use_count() == 1;
  auto to =
      in_place ? data.owned_ : std::make_shared<dataset::owned>(dataset::owned{float_array(n * width), float_array(n)});
  float_array test_features(n_test * width), test_labels(n_test);
  // A dataset whose rows do not begin at the buffer's start (a shard) is closed up to the start as well.
  float* features = to->features.data();
  float* labels = to->labels.data();
  std::size_t at[2] = {0, 0};                // rows written on either side
  std::size_t begin = 0, end = 0, side = 0;  // the run of records [begin, end) that goes to this side
  const auto move_run = [&] {
    const auto rows = end - begin;
    if (!rows) return;
    std::memmove((side ? test_features.data() : features) + at[side] * width, data.features_ + begin * width,
                 rows * width * sizeof(float));
    std::memmove((side ? test_labels.data() : labels) + at[side], data.labels_ + begin, rows * sizeof(float));
    at[side] += rows, begin = end;
  };
  for (std::size_t w = 0; w < in_test.size(); ++w)
    for (auto left = in_test[w] | in_train[w]; left; left &= left - 1) {
      const std::size_t now = in_test[w] >> std::countr_zero(left) & 1;
      if (now != side) move_run(), side = now;
      ++end;
    }
  move_run();
  if (n_test) {
    std::memcpy(features + n_train * width, test_features.data(), n_test * width * sizeof(float));
    std::memcpy(labels + n_train, test_labels.data(), n_test * sizeof(float));
  }
  parts.train.owned_ = parts.test.owned_ = to;
  parts.train.features_ = features, parts.train.labels_ = labels;
  parts.test.features_ = features + n_train * width, parts.test.labels_ = labels + n_train;
  return parts;
}

/// Records [n rank / size, n (rank + 1) / size) of the dataset's n: all() and universe() stay the whole's. Copies
/// nothing. Throws when there are more ranks than records.
[[gnu::cold]] inline dataset shard_of(const dataset& data, std::size_t rank, std::size_t size) {
  require(rank < size, "rank ", rank, " of ", size, " ranks");
  require(size <= data.count_, "more ranks than records: ", size, " ranks, ", data.count_,
          " records; use fewer ranks (not private: the number of records)");
  const auto begin_of = [&](std::size_t r) { return data.count_ / size * r + data.count_ % size * r / size; };
  const auto begin = begin_of(rank), end = begin_of(rank + 1);
  dataset part = data;
  part.features_ += begin * data.width_, part.labels_ += begin;
  part.skip_ += begin, part.count_ = end - begin;
  // The rows of the file that are this shard's to answer for: up to the next shard's first record.
  const auto file_end = data.first_ + data.rows_;
  part.first_ = rank == 0 ? data.first_ : data.position(begin);
  part.rows_ = (rank + 1 == size ? file_end : data.position(end)) - part.first_;
  part.dropped_ =
      (data.members_ ? detail::count_bits(*data.members_, part.first_, part.first_ + part.rows_) : part.rows_) -
      part.count_;
  return part;
}

/// The shard of this rank: World is anything with rank() and size().
template <class World>
dataset shard(const dataset& data, const World& world) {
  return shard_of(data, static_cast<std::size_t>(world.rank()), static_cast<std::size_t>(world.size()));
}

/// Whether all records have one label, so that there is nothing to learn (true without records). Not private.
inline bool constant_label(const dataset& data) {
  for (const float label : data.labels())
    if (label != data.labels()[0]) return false;
  return true;
}

}  // namespace dpsgd
