/// What a run may claim, in one value that prints as one sentence; and the type of what is not private.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <ostream>
#include <string>

#include "dpsgd/accounting/events.hpp"

namespace dpsgd {

/// A number >= 0 with three significant digits, rounded up, as %g writes it: "2.31", "1e-06", "inf". What is printed
/// is never below the number, so a claim that holds for the number holds for what is printed.
[[gnu::cold]] inline std::string rounded_up(double number) {
  if (!(number > 0) || std::isinf(number)) return number > 0 ? "inf" : number == 0 ? "0" : "nan";
  const auto print = [](double value, std::chars_format format, int precision) {
    char room[32];
    return std::string(room, std::to_chars(room, room + sizeof room, value, format, precision).ptr);
  };
  const auto parse = [](const std::string& digits) {
    double value = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return value;
  };
  const std::string nearest = print(number, std::chars_format::scientific, 2);  // "2.30e+00"
  double shown = parse(nearest);
  if (shown < number) {  // was rounded down: one more in the last digit
    const int mantissa = (nearest[0] - '0') * 100 + (nearest[2] - '0') * 10 + (nearest[3] - '0') + 1;
    shown = parse(std::to_string(mantissa) + "e" + std::to_string(std::stoi(nearest.substr(5)) - 2));
  }
  return print(shown, std::chars_format::general, 3);
}

/// "(epsilon, delta)-DP", and under which conditions. Made by make_claim.
struct claim {
  double epsilon = std::numeric_limits<double>::infinity();  // infinite when there is no privacy
  double delta = 0;
  std::string unit;        // "one row", "one owner of at most 4 rows"
  std::string adjacency;   // "zero-out"
  std::string sampling;    // "Poisson sampling"
  std::string accountant;  // "PLD"
  dpsgd::arithmetic arithmetic = dpsgd::arithmetic::idealised;
  exposure why_not;

  bool is_private() const { return !why_not.any() && epsilon < std::numeric_limits<double>::infinity(); }

  /// (epsilon 2.31, delta 1e-06)-DP, unit: one row, zero-out adjacency, Poisson sampling, PLD, idealised arithmetic
  /// or: not private: no noise, no clip
  [[gnu::cold]] std::string words() const {
    if (why_not.any()) return "not private: " + why_not.words();
    if (!is_private()) return "not private: epsilon is infinite at delta " + rounded_up(delta);
    return text("(epsilon ", rounded_up(epsilon), ", delta ", rounded_up(delta), ")-DP, unit: ", unit, ", ", adjacency,
                " adjacency, ", sampling, ", ", accountant, ", ",
                arithmetic == dpsgd::arithmetic::exact ? "exact" : "idealised", " arithmetic");
  }
  friend std::ostream& operator<<(std::ostream& out, const claim& c) { return out << c.words(); }
};

/// The claim of a run whose steps were of the type `Event` and have all been added to `accountant`. `why_not` says what
/// the event cannot know (a user's seed); what the event does know is taken from it. Cost: one accountant.spent(delta).
/// Throws dpsgd::error when delta is negative or NaN.
template <accountant Accountant, privacy_event Event>
claim make_claim(const Accountant& accountant, const Event& event, double delta, exposure why_not = {}) {
  static_assert(accounts<Accountant, Event>, "dpsgd: this accountant cannot account for this event");
  if constexpr (std::same_as<Event, no_privacy_event>) why_not = why_not | event.why;
  claim c{std::numeric_limits<double>::infinity(),
          delta,
          unit_words(event),
          std::string(Event::adjacency::name),
          std::string(Event::sampling),
          std::string(Accountant::name),
          Event::exactness,
          why_not};
  if constexpr (requires {
                  { accountant.exactness() } -> std::same_as<arithmetic>;
                })
    if (accountant.exactness() == arithmetic::idealised) c.arithmetic = arithmetic::idealised;
  require(delta >= 0, "delta must be a number >= 0; got ", delta);
  if (!why_not.any()) c.epsilon = accountant.spent(delta).epsilon;
  return c;
}

/// A value that was computed from the data and carries no privacy guarantee (a test accuracy, a count of dropped rows).
/// It says so wherever it is printed: 0.81 (not private). Take .value to compute with it.
template <class T>
struct not_private {
  T value{};
  friend std::ostream& operator<<(std::ostream& out, const not_private& v) {
    return out << v.value << " (not private)";
  }
  friend constexpr bool operator==(const not_private&, const not_private&) = default;
};
template <class T>
not_private(T) -> not_private<T>;

}  // namespace dpsgd
