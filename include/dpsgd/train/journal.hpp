/// What rank 0 keeps on disk while the trainer runs: the ledger of what is spent, and checkpoints. Either may be absent.
///
/// The trainer calls begin, then reserve before steps run and checkpoint after some of them. The ledger counts steps before
/// they run, and a checkpoint that is on the disk settles them: so a crash can over-count, never under-count.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/ledger.hpp"
#include "dpsgd/core/digest.hpp"
#include "dpsgd/core/sealed_file.hpp"

namespace dpsgd {

/// Everything that a run resumes from, in the order of the coordinates, whatever the number of ranks. (Never a key: a
/// resumed run draws a fresh one.)
struct training_state {
  std::uint64_t step = 0;  // released so far
  std::span<float> parameters;
  std::vector<std::span<float>> moments;  // of the optimizer

  void save(const std::filesystem::path& file, std::string_view description) const {
    sealed_writer out("dpsgd-checkpoint 1");
    out.put(description);
    out.put(step);
    out.put(std::span<const float>(parameters));
    out.put(std::uint64_t{moments.size()});
    for (const auto& m : moments) out.put(std::span<const float>(m));
    out.write(file);
  }
  /// Throws dpsgd::error when the file is damaged or of another model, optimizer or description.
  void load(const std::filesystem::path& file, std::string_view description) {
    sealed_reader in(file, "dpsgd-checkpoint 1");
    const auto theirs = in.get_text();
    require(theirs == description, file.string(), ": this checkpoint is of another run: it has ", theirs, ", this one ", description);
    step = in.get<std::uint64_t>();
    in.get(parameters);
    const auto count = in.get<std::uint64_t>();
    require(count == moments.size(), file.string(), ": this checkpoint is of another optimizer (", count, " moments, not ",
            moments.size(), ")");
    for (auto& m : moments) in.get(m);
    require(in.at_end(), file.string(), ": there is more in this checkpoint than there should be");
  }
};

/// See the top of this page. Used on rank 0 alone; every member throws dpsgd::error.
class journal {
 public:
  /// Counts every step in `book`; with a budget, steps that would take the data set's epsilon past it are not granted.
  /// The ledger must outlive this.
  void keep(ledger& book, std::optional<privacy_target> budget = {}) { book_ = &book, budget_ = budget; }

  /// Keeps the latest state in directory/latest.checkpoint. `description` (of the data, say) must agree when it is resumed.
  void keep_checkpoints(const std::filesystem::path& directory, std::string description, bool resume) {
    std::error_code failed;
    std::filesystem::create_directories(directory, failed);
    require(!failed, "cannot make the checkpoint directory ", directory.string(), ": ", failed.message());
    file_ = directory / "latest.checkpoint", description_ = std::move(description), resume_ = resume;
    if (resume) require(std::filesystem::exists(file_), "there is nothing to resume: ", file_.string(), " does not exist");
    else
      require(!std::filesystem::exists(file_), file_.string(), " exists: resume it, or name another directory (it would be overwritten)");
  }

  /// A fit begins: fills `state` when it is to be resumed, and tells the ledger what each of its steps will be.
  template <class Accountant, class Event>
  void begin(training_state& state, const Event& event, std::uint64_t target, const Accountant& empty) {
    if (resume_) state.load(file_, description_);
    begun_at_ = state.step, target_ = target;
    if (!book_) return;
    if (budget_) {
      Accountant before = empty;
      book_->add_to(before);
      left_ = most_steps(*budget_, event, before);
    }
    book_->begin(event);
  }

  /// How many steps may run now that `done` were released: reserved on the disk when it returns. 0: the budget is spent.
  std::uint64_t reserve(std::uint64_t done) {
    if (!book_) return target_ - done;
    const auto more = std::min(reservation(done, target_), left_);
    if (more > 0) book_->reserve(more);
    left_ -= more;
    return more;
  }

  /// Writes `state` durably, then settles the ledger.
  void checkpoint(const training_state& state) {
    if (!file_.empty()) state.save(file_, description_);
    if (book_) {
      left_ += book_->granted() - (state.step - begun_at_);
      book_->settle(state.step - begun_at_);
    }
  }

 private:
  ledger* book_ = nullptr;
  std::optional<privacy_target> budget_;
  std::filesystem::path file_;
  std::string description_;
  bool resume_ = false;
  std::uint64_t begun_at_ = 0, target_ = 0, left_ = std::numeric_limits<std::uint64_t>::max() / 2;
};

}  // namespace dpsgd
