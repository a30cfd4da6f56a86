/// What rank 0 keeps on disk while the trainer runs: the ledger of what is spent, and checkpoints. Either may be
/// absent.
///
/// The ledger counts steps before they run, and a checkpoint that is on the disk settles them: so a crash can
/// over-count, never under-count.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/ledger.hpp"
#include "dpsgd/accounting/pld.hpp"
#include "dpsgd/core/sealed_file.hpp"
#include "dpsgd/train/journal_base.hpp"

namespace dpsgd {

namespace detail {

/// `event` is what each of its steps was: steps of another event are another claim. `run`: its number in the ledger, 0
/// without one; `counted`: what the ledger then counts of such steps, over all runs.
inline void save(const training_state& state, const std::filesystem::path& file, std::string_view description,
                 std::string_view event, std::uint64_t run, std::uint64_t counted) {
  sealed_writer out("dpsgd-checkpoint 4");
  out.put(description);
  out.put(event);
  out.put(run);
  out.put(counted);
  out.put(state.step);
  out.put(std::uint64_t{state.by_key.size()});
  for (const auto steps : state.by_key) out.put(steps);
  out.put(std::span<const float>(state.parameters));
  out.put(std::uint64_t{state.moments.size()});
  for (const auto& m : state.moments) out.put(std::span<const float>(m));
  out.write(file);
}

/// Returns run and counted, as save() has them. Throws dpsgd::error when the file is damaged or of another model,
/// optimizer, description or event.
inline std::pair<std::uint64_t, std::uint64_t> load(training_state& state, const std::filesystem::path& file,
                                                    std::string_view description, std::string_view event) {
  sealed_reader in(file, "dpsgd-checkpoint 4");
  const auto theirs = in.get_text();
  require(theirs == description, file.string(), ": this checkpoint is of another run: it has ", theirs, ", this one ",
          description);
  const auto steps_were = in.get_text();
  require(steps_were == event, file.string(), ": this checkpoint's steps were ", steps_were, ", this run's would be ",
          event, ": one claim cannot cover both; resume with the same clip, noise and sampling");
  const auto run = in.get<std::uint64_t>(), counted = in.get<std::uint64_t>();
  state.step = in.get<std::uint64_t>();
  const auto keys = in.get<std::uint64_t>();
  require(keys <= state.step, file.string(), ": this checkpoint makes no sense");
  state.by_key.clear();
  for (std::uint64_t k = 0; k < keys; ++k) state.by_key.push_back(in.get<std::uint64_t>());
  in.get(state.parameters);
  const auto count = in.get<std::uint64_t>();
  require(count == state.moments.size(), file.string(), ": this checkpoint is of another optimizer (", count,
          " moments, not ", state.moments.size(), ")");
  for (auto& m : state.moments) in.get(m);
  require(in.at_end(), file.string(), ": there is more in this checkpoint than there should be");
  return {run, counted};
}

}  // namespace detail

/// See the top of this page. Every member throws dpsgd::error. Accountant says what a budget leaves: with rdp_filter
/// (accounting/filter.hpp) also where each run's noise was chosen after seeing earlier runs, if all were given one
/// budget.
template <accountant Accountant = pld_accountant>
class basic_journal : public journal_base {
 public:
  /// Counts every step in `book`; with a budget, steps that would take the data set's epsilon past it are not granted.
  /// The ledger must outlive this.
  void keep(ledger& book, std::optional<privacy_target> budget = {}) { book_ = &book, budget_ = budget; }

  /// Keeps the latest state in directory/latest.checkpoint. `description` (of the data, say) must agree when it is
  /// resumed.
  void keep_checkpoints(const std::filesystem::path& directory, std::string description, bool resume) {
    std::error_code failed;
    std::filesystem::create_directories(directory, failed);
    require(!failed, "cannot make the checkpoint directory ", directory.string(), ": ", failed.message());
    file_ = directory / "latest.checkpoint", description_ = std::move(description), resume_ = resume;
    if (resume)
      require(std::filesystem::exists(file_), "there is nothing to resume: ", file_.string(), " does not exist");
    else
      require(!std::filesystem::exists(file_), file_.string(),
              " exists: resume it, or name another directory (it would be overwritten)");
  }

  void begin(training_state& state, const recorded_event& event, std::uint64_t target) override {
    event_ = std::visit([](const auto& e) { return event_words(e); }, event);
    begun_at_ = 0;
    if (resume_) {
      const auto [run, counted] = detail::load(state, file_, description_, event_);
      begun_at_ = state.step;
      check_ledger(run, counted, event);
    } else {
      require(file_.empty() || !std::filesystem::exists(file_), file_.string(),
              " exists, from another fit: resume it, or keep this fit's checkpoints in another directory");
    }
    target_ = target, recorded_ = event;
    if (!book_) return;
    std::visit(
        [&](const auto& e) {
          if (budget_) {
            if constexpr (accounts<Accountant, std::decay_t<decltype(e)>>) {
              auto before = nothing_of(*budget_);
              book_->add_to(before);
              left_ = most_steps(*budget_, e, before);
            } else {
              fail("the ", Accountant::name, " accountant cannot tell what a budget leaves for steps of kind ",
                   std::decay_t<decltype(e)>::kind(), "; use a basic_journal of another accountant");
            }
          }
          run_ = book_->begin(e);
        },
        event);
  }

  std::uint64_t reserve(std::uint64_t done) override {
    if (!book_) return target_ - done;
    const auto more = std::min(reservation(done, target_), left_);
    if (more > 0) book_->reserve(run_, more);
    left_ -= more;
    return more;
  }

  void checkpoint(const training_state& state) override {
    const auto released = state.step - begun_at_;
    std::uint64_t unused = 0, counted = 0;  // reserved and not released; counted once that is returned
    if (book_) unused = book_->granted(run_) - released, counted = book_->counted(recorded_) - unused;
    if (!file_.empty()) detail::save(state, file_, description_, event_, run_, counted);
    if (book_) left_ += unused, book_->settle(run_, released);
  }

 private:
  /// An accountant to which nothing was added; a filter, for its budget.
  static Accountant nothing_of(const privacy_target& budget) {
    if constexpr (std::constructible_from<Accountant, privacy_target>) return Accountant(budget);
    else return Accountant();
  }

  /// The steps that are resumed were entered when they ran: this must be the ledger that they were entered in.
  void check_ledger(std::uint64_t run, std::uint64_t counted, const recorded_event& event) const {
    if (!book_)
      return require(run == 0, "the run of the checkpoint ", file_.string(),
                     " was entered in a ledger; resume it with that one, so that all of its steps are counted");
    require(run != 0, "the run of the checkpoint ", file_.string(),
            " was entered in no ledger, so this one would count only a part of it; resume it without a ledger");
    require(book_->has(run), "the run of the checkpoint ", file_.string(),
            " is not in this ledger: it is not the ledger that the run was entered in; name that one");
    const auto now = book_->counted(event);
    require(now >= counted, "the ledger counts ", now, " steps of this kind where it counted ", counted,
            " when the checkpoint ", file_.string(),
            " was written: it is an earlier copy of the ledger; name the latest one");
  }

  ledger* book_ = nullptr;
  std::optional<privacy_target> budget_;
  std::filesystem::path file_;
  std::string description_, event_;
  bool resume_ = false;
  recorded_event recorded_;
  std::uint64_t run_ = 0;  // its number in the ledger
  std::uint64_t begun_at_ = 0, target_ = 0, left_ = std::numeric_limits<std::uint64_t>::max() / 2;
};
using journal = basic_journal<>;

}  // namespace dpsgd
