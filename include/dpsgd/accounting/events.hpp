/// Privacy events: what one training step did, as a type that carries what an accountant needs and nothing else.
///
/// A clip says its sensitivity, noise turns that into an event, sampling amplifies the event:
///   sampling.amplify(noise.event(clip.sensitivity()))
///     ->  poisson_sampled<gaussian_event<zero_out>>{rate, {multiplier}}
/// An accountant adds up the events that it knows (`accounts`). What it does not know does not compile.
///
/// An event type has
///   adjacency                  a tag below
///   sampling, exactness        what a claim says about them
///   check()                    throws dpsgd::error when its numbers are impossible
///   is_free()                  true when it releases nothing about the data, so that any number of it spends 0
///   ==                         equal events are added up as one
/// and, if a ledger is to hold it, kind() and each_number(f) (see accounting/ledger.hpp); f is given a name, the number,
/// and where there is one the usual number, which need not be written down.
#pragma once

#include <charconv>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <variant>

#include "dpsgd/accounting/participation.hpp"
#include "dpsgd/core/error.hpp"

namespace dpsgd {

/// The adjacency of dpsgd: a neighbouring data set has one row replaced by a row that contributes nothing, or where the
/// unit is an owner, all rows of one owner. The number of rows and their positions are public. For Poisson sampling this
/// gives the same two output distributions as adding or removing them.
struct zero_out {
  static constexpr std::string_view name = "zero-out";
  static constexpr std::string_view unit = "one row";  // what is protected, where the event says no more (unit_words)
};

/// Whether a claim holds for the bits that were computed, or for the real numbers that they stand for.
enum class arithmetic { idealised, exact };

/// Why a run is not private, however little it seems to spend. Any of these makes epsilon infinite.
struct exposure {
  bool no_noise = false;
  bool no_clip = false;
  bool insecure_seed =
      false;  // a user's seed for noise or sampling (one for the public split or initialisation is fine)

  constexpr bool any() const { return no_noise || no_clip || insecure_seed; }
  friend constexpr bool operator==(const exposure&, const exposure&) = default;
  friend constexpr exposure operator|(exposure a, exposure b) {
    return {a.no_noise || b.no_noise, a.no_clip || b.no_clip, a.insecure_seed || b.insecure_seed};
  }
  /// "no noise, no clip"
  std::string words() const {
    std::string all;
    const auto say = [&](bool holds, const char* reason) {
      if (holds) all.append(all.empty() ? "" : ", ").append(reason);
    };
    say(no_noise, "no noise");
    say(no_clip, "no clip");
    say(insecure_seed, "a user's seed for noise and sampling");
    return all;
  }
};

/// One release of a sum with Gaussian noise of standard deviation multiplier x sensitivity on every coordinate, where
/// the sensitivity is that of one row. What is protected is one row; or an owner, who has at most `rows` of them.
template <class Adjacency>
struct gaussian_event {
  using adjacency = Adjacency;
  static constexpr std::string_view sampling = "no sampling";
  static constexpr arithmetic exactness = arithmetic::idealised;

  double multiplier = 0;  // noise standard deviation / sensitivity; 0 is no protection
  double rows = 1;        // that the protected unit has at most; a whole number from 1 to 64
  double owners = 0;      // of several rows, which they are: a whole number of theirs below 2^32 (dataset::owners)

  void check() const {
    require(multiplier >= 0, "a noise multiplier must be a number >= 0; got ", multiplier);  // NaN fails too
    require(rows >= 1 && rows <= 64 && rows == static_cast<int>(rows),
            "an owner's rows must be a whole number from 1 to 64; got ", rows);
    require(owners >= 0 && owners < 0x1p32 && owners == static_cast<double>(static_cast<std::uint64_t>(owners)) &&
                (rows > 1 || owners == 0),
            "the number of an event's owners must be a whole one below 2^32, and 0 for single rows; got ", owners);
  }
  constexpr bool is_free() const { return multiplier == std::numeric_limits<double>::infinity(); }
  static std::string kind() { return "gaussian"; }
  template <class Use>
  constexpr void each_number(Use&& use) {
    use("multiplier", multiplier);
    use("rows", rows, 1.0);
    use("owners", owners, 0.0);
  }
  friend constexpr bool operator==(const gaussian_event&, const gaussian_event&) = default;
};

/// One release of a sum of whole numbers with discrete Gaussian noise on every coordinate, of parameter sigma =
/// multiplier x sensitivity, exactly sampled. Its moments of whole orders are those of gaussian_event, Poisson-sampled
/// too (accounting/rdp.hpp); its delta may be larger.
template <class Adjacency>
struct discrete_gaussian_event {
  using adjacency = Adjacency;
  static constexpr std::string_view sampling = "no sampling";
  static constexpr arithmetic exactness = arithmetic::exact;

  double multiplier = 0;  // sigma / sensitivity; 0 is no protection

  void check() const {
    require(multiplier >= 0, "a noise multiplier must be a number >= 0; got ", multiplier);  // NaN fails too
  }
  constexpr bool is_free() const { return multiplier == std::numeric_limits<double>::infinity(); }
  static std::string kind() { return "discrete-gaussian"; }
  template <class Use>
  constexpr void each_number(Use&& use) {
    use("multiplier", multiplier);
  }
  friend constexpr bool operator==(const discrete_gaussian_event&, const discrete_gaussian_event&) = default;
};

/// `event` on a batch that every row joins by itself with probability `rate`.
template <class Event>
struct poisson_sampled {
  using adjacency = typename Event::adjacency;
  static constexpr std::string_view sampling = "Poisson sampling";
  static constexpr arithmetic exactness = Event::exactness;

  double rate = 0;  // in [0, 1]
  Event event{};

  void check() const {
    require(rate >= 0 && rate <= 1, "a sampling rate must lie in [0, 1]; got ", rate);
    event.check();
  }
  constexpr bool is_free() const { return rate == 0 || event.is_free(); }
  static std::string kind() { return "poisson-" + Event::kind(); }
  template <class Use>
  constexpr void each_number(Use&& use) {
    use("rate", rate);
    event.each_number(use);
  }
  friend constexpr bool operator==(const poisson_sampled&, const poisson_sampled&) = default;
};
template <class Event>
poisson_sampled(double, Event) -> poisson_sampled<Event>;

/// `event` on a batch that is drawn without replacement and has a size fixed in advance: at most the share `rate` of all
/// positions, each set of that size alike. It is no Poisson sampling: a row that joins pushes another one out, so the
/// two laws differ by more than this row's own contribution (accounting/rdp.hpp).
template <class Event>
struct fixed_size_sampled {
  using adjacency = typename Event::adjacency;
  static constexpr std::string_view sampling = "fixed-size sampling without replacement";
  static constexpr arithmetic exactness = Event::exactness;

  double rate = 0;  // size / positions, in [0, 1]
  Event event{};

  void check() const {
    require(rate >= 0 && rate <= 1, "a sampling rate must lie in [0, 1]; got ", rate);
    require(rows_of(event) == 1,
            "what batches of a fixed size spend is not known for several rows of one owner; use poisson_sampling");
    event.check();
  }
  constexpr bool is_free() const { return rate == 0 || event.is_free(); }
  static std::string kind() { return "fixed-size-" + Event::kind(); }
  template <class Use>
  constexpr void each_number(Use&& use) {
    use("rate", rate);
    event.each_number(use);
  }
  friend constexpr bool operator==(const fixed_size_sampled&, const fixed_size_sampled&) = default;
};
template <class Event>
fixed_size_sampled(double, Event) -> fixed_size_sampled<Event>;

/// A step of a run in which every row joins one of each `epoch` steps and no other of them. The steps of an epoch show
/// a row once, so together they are one `event`, and no chance amplifies it: who knows the step knows all. Steps add up
/// to releases(steps) events. That holds for steps counted from where the run drew its key; a part of an epoch that is
/// resumed under another key is a run of its own.
template <class Event>
struct once_per_epoch {
  using adjacency = typename Event::adjacency;
  static constexpr std::string_view sampling = "each row once an epoch, unamplified";
  static constexpr arithmetic exactness = Event::exactness;

  double epoch = 1;  // steps; a whole number from 1 to 2^32 - 1
  Event event{};

  /// How many events `steps` steps from the run's begin are: begun epochs count whole.
  constexpr std::uint64_t releases(std::uint64_t steps) const {
    const auto whole = static_cast<std::uint64_t>(epoch);
    return steps / whole + (steps % whole != 0);
  }
  void check() const {
    require(epoch >= 1 && epoch < 0x1p32 && epoch == static_cast<double>(static_cast<std::uint64_t>(epoch)),
            "an epoch must have a whole number of steps from 1 to 2^32 - 1; got ", epoch);
    event.check();
  }
  constexpr bool is_free() const { return event.is_free(); }
  static std::string kind() { return "once-per-epoch-" + Event::kind(); }
  template <class Use>
  constexpr void each_number(Use&& use) {
    use("epoch", epoch);
    event.each_number(use);
  }
  friend constexpr bool operator==(const once_per_epoch&, const once_per_epoch&) = default;
};
template <class Event>
once_per_epoch(double, Event) -> once_per_epoch<Event>;

/// An event whose steps do not add up one by one, but epoch by epoch.
template <class E>
concept epoch_event = requires(const E& e, std::uint64_t steps) {
  e.event;
  { e.releases(steps) } -> std::same_as<std::uint64_t>;
};

/// One step of noise that is correlated over the steps (privacy/correlated_noise.hpp): multiplier x sensitivity times a
/// fixed combination of independent normal words, this step's and earlier ones'. By itself it is accounted for by nobody:
/// what it spends hangs on the steps that a row joins (cyclically_sampled), and no sampling by chance amplifies it.
template <class Adjacency>
struct correlated_gaussian_event {
  using adjacency = Adjacency;
  static constexpr std::string_view sampling = "no sampling";
  static constexpr arithmetic exactness = arithmetic::idealised;
  static constexpr double most_bands = 4096;

  double multiplier = 0;  // of the combination, in which this step's word has weight 1; 0 is no protection
  double bands = 0;       // of the banded inverse square root, a whole number from 1 to 4,096; 0: the binary tree

  void check() const {
    require(multiplier >= 0, "a noise multiplier must be a number >= 0; got ", multiplier);  // NaN fails too
    require(bands >= 0 && bands <= most_bands && bands == std::floor(bands),
            "correlated noise has a whole number of bands from 1 to ", most_bands, ", or 0 for the tree; got ", bands);
  }
  constexpr bool is_free() const { return multiplier == std::numeric_limits<double>::infinity(); }
  static std::string kind() { return "correlated-gaussian"; }
  template <class Use>
  constexpr void each_number(Use&& use) {
    use("multiplier", multiplier);
    use("bands", bands);
  }
  friend constexpr bool operator==(const correlated_gaussian_event&, const correlated_gaussian_event&) = default;
};

/// A step of a run of correlated noise in which every row joins each `separation`-th step and no other. All steps under
/// one key are one release together, release(steps), and not the sum of anything that single steps spend: so an
/// accountant is given the steps of one key at once, counted from where the key was drawn. Another key is another
/// mechanism, whose release composes with the earlier ones.
template <class Event>
struct cyclically_sampled {
  using adjacency = typename Event::adjacency;
  static constexpr std::string_view sampling = "correlated noise over cyclic sampling";
  static constexpr arithmetic exactness = Event::exactness;
  static constexpr std::uint64_t most_steps = std::uint64_t{1} << 22;

  double separation = 1;  // steps from one to the next that a row joins; a whole number from 1 to 2^32 - 1
  Event event{};

  /// The one Gaussian that `steps` > 0 steps under one key are: its multiplier is the event's over how far one row moves
  /// all of them (accounting/participation.hpp). Throws dpsgd::error beyond 2^22 steps. Cost: steps x bands, or steps x
  /// log2(steps), operations: 2 ms for 10^5 steps of 16 bands; nothing where the last call had the same steps.
  gaussian_event<adjacency> release(std::uint64_t steps) const {
    check();
    require(steps > 0 && steps <= most_steps, "correlated noise is accounted for up to ", most_steps,
            " steps under one key; got ", steps, "; take fewer steps, or independent noise");
    const auto apart = static_cast<std::uint64_t>(separation);
    struct question {
      double bands;
      std::uint64_t steps, apart;
      bool operator==(const question&) const = default;
    };
    // Who looks for a multiplier asks the same again and again.
    static thread_local question last{-1, 0, 0};
    static thread_local double releases = 0;
    if (const question asked{event.bands, steps, apart}; !(asked == last)) {
      releases = event.bands > 0 ? banded_releases(static_cast<std::uint64_t>(event.bands), steps, apart)
                                 : tree_releases(steps, apart);
      last = asked;
    }
    return {event.multiplier / std::sqrt(releases)};
  }
  void check() const {
    require(separation >= 1 && separation < 0x1p32 && separation == std::floor(separation),
            "a row must join once every so many steps, a whole number from 1 to 2^32 - 1; got ", separation);
    event.check();
  }
  constexpr bool is_free() const { return event.is_free(); }
  static std::string kind() { return "cyclic-" + Event::kind(); }
  template <class Use>
  constexpr void each_number(Use&& use) {
    use("separation", separation);
    event.each_number(use);
  }
  friend constexpr bool operator==(const cyclically_sampled&, const cyclically_sampled&) = default;
};
template <class Event>
cyclically_sampled(double, Event) -> cyclically_sampled<Event>;

/// An event whose steps under one key are one release.
template <class E>
concept one_release_event = requires(const E& e, std::uint64_t steps) {
  { e.release(steps) } -> std::same_as<gaussian_event<typename E::adjacency>>;
};

/// A release that protects nobody: one such step spends infinity. Sampling does not amplify it.
struct no_privacy_event {
  using adjacency = zero_out;
  static constexpr std::string_view sampling = "no sampling";
  static constexpr arithmetic exactness = arithmetic::idealised;

  exposure why;

  void check() const { require(why.any(), "a no_privacy_event must say why: no_noise, no_clip or insecure_seed"); }
  constexpr bool is_free() const { return false; }
  static std::string kind() { return "not-private"; }
  template <class Use>
  constexpr void each_number(Use&& use) {
    const auto flag = [&](const char* name, bool& holds) {
      double number = holds;
      use(name, number);
      holds = number != 0;
    };
    flag("no_noise", why.no_noise), flag("no_clip", why.no_clip), flag("insecure_seed", why.insecure_seed);
  }
  friend constexpr bool operator==(const no_privacy_event&, const no_privacy_event&) = default;
};

/// What stands for the event of a pairing that was already refused. Every later check lets it pass, so that a wrong
/// program gives one error. Nothing of this type is ever computed with.
struct refused_event {
  using adjacency = zero_out;
  static constexpr std::string_view sampling = "refused";
  static constexpr arithmetic exactness = arithmetic::idealised;
  void check() const { fail("a refused event was accounted for: a compile-time check of dpsgd did not do its work"); }
  constexpr bool is_free() const { return false; }
  friend constexpr bool operator==(const refused_event&, const refused_event&) = default;
};

/// An event, as listed at the top of this page.
template <class E>
concept privacy_event = std::equality_comparable<E> && requires(const E& e) {
  { E::adjacency::name } -> std::convertible_to<std::string_view>;
  { E::adjacency::unit } -> std::convertible_to<std::string_view>;
  { E::sampling } -> std::convertible_to<std::string_view>;
  { E::exactness } -> std::convertible_to<arithmetic>;
  e.check();
  { e.is_free() } -> std::convertible_to<bool>;
};

static_assert(privacy_event<gaussian_event<zero_out>> && privacy_event<poisson_sampled<gaussian_event<zero_out>>>);
static_assert(privacy_event<poisson_sampled<discrete_gaussian_event<zero_out>>>);
static_assert(privacy_event<fixed_size_sampled<gaussian_event<zero_out>>>);
static_assert(privacy_event<once_per_epoch<gaussian_event<zero_out>>>);
static_assert(epoch_event<once_per_epoch<gaussian_event<zero_out>>> && !epoch_event<gaussian_event<zero_out>>);
static_assert(privacy_event<cyclically_sampled<correlated_gaussian_event<zero_out>>>);
static_assert(one_release_event<cyclically_sampled<correlated_gaussian_event<zero_out>>>);
static_assert(privacy_event<no_privacy_event> && privacy_event<refused_event>);

/// The events that a ledger can hold. A new kind of event is added here; an older dpsgd refuses a file that has it.
using recorded_event =
    std::variant<poisson_sampled<gaussian_event<zero_out>>, gaussian_event<zero_out>, no_privacy_event,
                 fixed_size_sampled<gaussian_event<zero_out>>, once_per_epoch<gaussian_event<zero_out>>,
                 discrete_gaussian_event<zero_out>, poisson_sampled<discrete_gaussian_event<zero_out>>,
                 once_per_epoch<discrete_gaussian_event<zero_out>>,
                 cyclically_sampled<correlated_gaussian_event<zero_out>>>;

/// How many rows the unit has that an event protects.
template <class Event>
constexpr double rows_of(const Event& event) {
  if constexpr (requires { event.rows; }) return event.rows;
  else if constexpr (requires { event.event; }) return rows_of(event.event);
  else return 1;
}

/// Which owners an event protects; 0 where it protects single rows or does not say.
template <class Event>
constexpr double owners_of(const Event& event) {
  if constexpr (requires { event.owners; }) return event.owners;
  else if constexpr (requires { event.event; }) return owners_of(event.event);
  else return 0;
}

/// The same event for a unit of `rows` rows, all rows of one of these owners. What is not listed here throws dpsgd::error
/// for more than one row: whoever accounts for an event of their own may not look at `rows`. Where they do, they overload
/// this beside their event.
template <class Event>
Event with_rows(Event event, double rows, double = 0) {
  require(rows == 1, "what this clip, noise and sampling spend is known for single rows alone, not for owners of ",
          rows, "; use poisson_sampling with gaussian_noise");
  return event;
}
template <class Adjacency>
gaussian_event<Adjacency> with_rows(gaussian_event<Adjacency> event, double rows, double owners = 0) {
  event.rows = rows, event.owners = rows > 1 ? owners : 0;
  return event;
}
template <class Event>
poisson_sampled<Event> with_rows(poisson_sampled<Event> event, double rows, double owners = 0) {
  event.event = with_rows(event.event, rows, owners);
  return event;
}
template <class Event>
once_per_epoch<Event> with_rows(once_per_epoch<Event> event, double rows, double owners = 0) {
  event.event = with_rows(event.event, rows, owners);
  return event;
}
inline no_privacy_event with_rows(no_privacy_event event, double, double = 0) { return event; }

/// What an event protects: "one row", or "one owner of at most 4 rows".
template <class Event>
std::string unit_words(const Event& event) {
  const double rows = rows_of(event);
  if (rows == 1) return std::string(Event::adjacency::unit);
  return text("one owner of at most ", rows, " rows");
}

/// What the events that were added up have in common, for the claim: one claim has one unit, and is as exact as the
/// least exact of its events.
class protected_unit {
 public:
  /// Throws dpsgd::error where an event protects another unit than those before.
  template <class Event>
  void add(const Event& event) {
    exact_ = exact_ && Event::exactness == arithmetic::exact;
    if constexpr (std::same_as<Event, no_privacy_event>) return;  // protects nobody
    const double rows = rows_of(event);
    require(rows_ == 0 || rows_ == rows, "these steps protect ", unit_words(event),
            ", but earlier ones on the same data ",
            rows_ == 1 ? "one row" : text("one owner of at most ", rows_, " rows"),
            ": no claim covers both; give all runs on a data set the same bound on an owner's rows");
    require(
        rows_ == 0 || owners_ == owners_of(event),
        "these steps protect other owners than earlier ones on the same data: no claim covers both; give all runs on "
        "a data set the same column of owners");
    rows_ = rows, owners_ = owners_of(event);
  }
  /// Of all that was added; of nothing, exact.
  arithmetic exactness() const { return exact_ ? arithmetic::exact : arithmetic::idealised; }

 private:
  double rows_ = 0, owners_ = 0;  // of what was added; rows 0: nothing yet
  bool exact_ = true;
};

/// An event as files have it: "poisson-gaussian zero-out rate=0.01 multiplier=0.9". Numbers read back as the same
/// doubles.
template <class Event>
std::string event_words(Event event) {
  std::string text = Event::kind() + " " + std::string(Event::adjacency::name);
  event.each_number([&](const char* name, double number, double usual = std::numeric_limits<double>::quiet_NaN()) {
    if (number == usual) return;
    char digits[32];
    text += std::string(" ") + name + "=";
    text.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
  });
  return text;
}

/// An accountant adds up events and says what they spend: add(event, steps), spent(delta).epsilon, a name; and, where it
/// takes exact events as well as others, exactness() of all that was added. One add has steps of one key, counted from
/// where it was drawn: for most events it is all the same, but see once_per_epoch and cyclically_sampled.
/// Law: spent(delta).epsilon is never below the true epsilon of what was added, at that delta.
template <class A>
concept accountant = std::copyable<A> && requires(const A& a, double delta) {
  { A::name } -> std::convertible_to<std::string_view>;
  { a.spent(delta).epsilon } -> std::convertible_to<double>;
};

/// `Accountant` can account for `Event` (a refused event passes: it has had its error).
template <class Accountant, class Event>
concept accounts = accountant<Accountant> &&
    (std::same_as<Event, refused_event> || requires(Accountant & a, const Event& e) { a.add(e, std::uint64_t{1}); });

}  // namespace dpsgd
