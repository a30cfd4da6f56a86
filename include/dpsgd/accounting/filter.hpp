/// The Renyi filter: one budget, fixed in advance, for runs whose noise, rate or number of steps is chosen after seeing
/// what earlier runs gave.
///
/// An accountant adds up events that were fixed beforehand: what a step computes may depend on everything released
/// before it, how much noise it has may not. Where it does, moments at one order still add up: as long as their sum stays
/// within a bound that was fixed in advance, together with the order, all that was released keeps that bound (Feldman and
/// Zrnic 2021; for other measures Whitehouse et al. 2023). For the law of the privacy loss that is false in general
/// (arXiv:2602.15815), so there is no such filter of PLD.
///
/// This filter has several orders, fixed in advance like the budget: it admits what keeps at least one order's bound
/// (Lecuyer 2021). For each order the bound is that of (epsilon, delta / number of orders), because which order is left
/// in the end hangs on what came out: the outcomes that are left with one order are outcomes of that order's own
/// filter, so they add at most its share of delta. Choosing one order afterwards, with the whole delta, would be no
/// bound.
///
///   rdp_filter filter({.epsilon = 3, .delta = 1e-6}, poisson_sampled{0.001, gaussian_event<zero_out>{1.0}});
///                                                       // with what is planned, before the first run; then the same
///   book.add_to(filter);                                // the runs so far
///   if (filter.admit(event, steps)) ...                 // may this one run?
///   basic_journal<rdp_filter> keep;                     // or: asks for it, where it is given the budget
/// A trainer given the filter adds its own run to it. A resumed run's earlier steps are in the ledger as well, and then
/// count twice: never too little, and where that does not fit, a filter that the ledger fills in the end still may.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "dpsgd/accounting/calibrate.hpp"
#include "dpsgd/accounting/events.hpp"
#include "dpsgd/accounting/rdp.hpp"
#include "dpsgd/core/error.hpp"

namespace dpsgd {

/// See the top of this page. It is an accountant that knows two answers: all that was added keeps the budget, or nothing
/// is promised. A value: copies are independent. Cost: eight moments for each add (0.1 to 0.5 ms).
class rdp_filter {
 public:
  static constexpr std::string_view name = "RDP filter";

  struct result {
    double epsilon;  // the budget's, or infinite; 0 where nothing was added
  };

  /// With orders chosen for the budget: those that serve Gaussians, Poisson-sampled or not. Throws dpsgd::error on an
  /// impossible budget.
  explicit rdp_filter(const privacy_target& budget) : rdp_filter(budget, orders_for(budget)) {}

  /// With the one order that admits most steps of an event that is planned: where it is as planned, about as many as RDP
  /// admits at its best order. Fixed in advance as well, like the budget. Throws dpsgd::error on impossible numbers.
  template <class Event>
  requires(accounts<rdp_accountant, Event> && !epoch_event<Event> && !one_release_event<Event> &&
           !std::same_as<Event, no_privacy_event>) rdp_filter(const privacy_target& budget, const Event& planned)
      : rdp_filter(budget, std::vector<double>{order_for(budget, planned)}) {}

  /// With orders of your own: whole numbers from 2 up (those at which every event's moments are known), fixed before the
  /// first step. Fewer cost less of delta. Throws dpsgd::error on other orders and on an impossible budget.
  rdp_filter(const privacy_target& budget, const std::vector<double>& orders) : budget_(budget) {
    detail::check(budget);
    require(!orders.empty(), "a filter needs an order");
    const double log_delta = std::log(budget.delta / static_cast<double>(orders.size()));
    for (const double order : orders) {
      require(order >= 2 && order <= 0x1p24 && order == std::floor(order),
              "a filter's orders must be whole numbers from 2 to 2^24; got ", order);
      bounds_.push_back({order, most_moment(order, budget.epsilon, log_delta), 0});
    }
  }

  /// Whether `steps` steps of `event` still fit; if so, they are counted. Ask before they run. Throws dpsgd::error on
  /// impossible numbers.
  template <class Event>
  requires accounts<rdp_accountant, Event>
  bool admit(const Event& event, std::uint64_t steps) {
    auto after = *this;
    after.add(event, steps);
    if (!after.fits()) return false;
    *this = std::move(after);
    return true;
  }

  /// Counts `steps` steps of `event`, whether they fit or not: what has run already (ledger::add_to). Throws dpsgd::error
  /// on impossible numbers.
  template <class Event>
  requires accounts<rdp_accountant, Event>
  void add(const Event& event, std::uint64_t steps) {
    event.check();
    if (steps == 0) return;
    if constexpr (epoch_event<Event>) add(event.event, event.releases(steps));
    else if constexpr (one_release_event<Event>) add(event.release(steps), 1);
    else {
      any_ = true;
      unit_.add(event);
      if (event.is_free()) return;
      for (auto& b : bounds_)
        if constexpr (std::same_as<Event, no_privacy_event>) b.used = std::numeric_limits<double>::infinity();
        else b.used += static_cast<double>(steps) * log_moment(event, b.order);
    }
  }

  /// Whether all that was added keeps the budget.
  bool fits() const {
    constexpr double margin = 1e-9;  // more than the error of computing moments, and that of their sum
    return std::any_of(bounds_.begin(), bounds_.end(), [](const bound& b) { return b.used * (1 + margin) <= b.most; });
  }

  /// The budget's epsilon where all that was added fits and `delta` is no smaller than the budget's; else infinity.
  /// Throws dpsgd::error when delta is negative or NaN.
  result spent(double delta) const {
    require(delta >= 0, "delta must be a number >= 0; got ", delta);
    if (!any_) return {0};
    return {fits() && delta >= budget_.delta ? budget_.epsilon : std::numeric_limits<double>::infinity()};
  }

  /// How exact the least exact event is that was added.
  arithmetic exactness() const { return unit_.exactness(); }

 private:
  struct bound {
    double order, most, used;  // moments: at most, so far
  };

  /// From epsilon = moment/x + ln(1 - 1/order) - ln(delta order)/x, x = order - 1 (accounting/rdp.hpp).
  static double most_moment(double order, double epsilon, double log_delta) {
    const double x = order - 1;
    return x * (epsilon + std::log1p(1 / x)) + log_delta + std::log1p(x);
  }

  /// Of the whole orders up to 512.
  template <class Event>
  static double order_for(const privacy_target& budget, const Event& planned) {
    detail::check(budget);
    planned.check();
    double best = 2, most = -1;
    for (double order = 2; order <= 512; ++order) {
      const double steps = most_moment(order, budget.epsilon, std::log(budget.delta)) / log_moment(planned, order);
      if (steps > most) best = order, most = steps;
    }
    return best;
  }

  /// The order that is best for Gaussians, and smaller ones, which are better where few rows are sampled.
  static std::vector<double> orders_for(const privacy_target& budget) {
    detail::check(budget);
    constexpr int count = 8;
    const double log_delta = std::log(count / budget.delta);
    const double root = std::sqrt(budget.epsilon + log_delta) - std::sqrt(log_delta);  // of alpha's factor in epsilon
    std::vector<double> orders;
    for (int i = 0; i < count; ++i) {
      const double order = std::round(1 + std::sqrt(log_delta) / root * std::exp2((1 - i) / 2.0));
      if (const double whole = std::clamp(order, 2.0, 0x1p24); orders.empty() || orders.back() != whole)
        orders.push_back(whole);
    }
    return orders;
  }

  privacy_target budget_;
  std::vector<bound> bounds_;
  protected_unit unit_;
  bool any_ = false;
};
static_assert(accountant<rdp_filter> && accounts<rdp_filter, poisson_sampled<gaussian_event<zero_out>>>);
static_assert(accounts<rdp_filter, cyclically_sampled<correlated_gaussian_event<zero_out>>>);

}  // namespace dpsgd
