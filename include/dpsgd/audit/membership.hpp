/// Membership inference: was this record among those that the model was trained on? The adversary has the model and the
/// record, and looks at the loss: what was learnt by heart has a smaller one (Yeom et al. 2018).
///
///   const scores s = membership_scores(model, members, others);
///   auc(s.present, s.absent)                          0.5: he can only guess
///   decide_at(0.001, calibration)                     a threshold that few others pass, chosen on other records
///
/// Unlike the audit of bounds.hpp this is a weak adversary on ordinary records. What he finds is really lost; what he
/// does not find may be found by a better one.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "dpsgd/audit/bounds.hpp"
#include "dpsgd/core/error.hpp"
#include "dpsgd/train/metrics.hpp"

namespace dpsgd::audit {

/// The loss of each record of `data` (features(), labels()), in their order.
template <class Model, class Records,
          class Backend = typename default_backend<std::enable_if_t<(sizeof(Model) > 0)>>::type>
std::vector<double> losses(const Model& model, const Records& data, Backend b = {}) {
  std::vector<double> out(data.records());
  each_output(b, model, data.features(),
              [&](std::size_t i, std::span<const float> y) { out[i] = model.loss().value(y, data.labels()[i]); });
  return out;
}

/// The adversary's scores of members (present) and of others (absent): the larger, the likelier a member.
template <class Model, class Members, class Others>
scores membership_scores(const Model& model, const Members& members, const Others& others) {
  scores s{losses(model, members), losses(model, others)};
  for (auto* side : {&s.present, &s.absent})
    for (auto& v : *side) v = -v;
  return s;
}

/// The probability that a random one of `present` has a larger score than a random one of `absent`, where equal ones
/// count half (Mann and Whitney 1947): the area under the ROC curve. Throws dpsgd::error when either is empty or a score
/// is NaN. O(n log n).
inline double auc(std::span<const double> present, std::span<const double> absent) {
  require(!present.empty() && !absent.empty(), "the area under a ROC curve needs scores of both kinds");
  std::vector<std::pair<double, bool>> all;
  for (const double v : present) all.push_back({v, true});
  for (const double v : absent) all.push_back({v, false});
  for (const auto& v : all) require(!std::isnan(v.first), "a score is not a number: did the training diverge?");
  std::sort(all.begin(), all.end());
  double below = 0, wins = 0;  // of the absent
  for (std::size_t i = 0; i < all.size();) {
    double ours = 0, theirs = 0;
    std::size_t end = i;
    for (; end < all.size() && all[end].first == all[i].first; ++end) (all[end].second ? ours : theirs) += 1;
    wins += ours * (below + theirs / 2);
    below += theirs, i = end;
  }
  return wins / static_cast<double>(present.size()) / static_cast<double>(absent.size());
}

/// The lowest threshold that at most a share `false_positives` of `absent` reaches. Use it on other scores: on these it
/// is flattered.
inline decision decide_at(double false_positives, std::span<const double> absent) {
  require(false_positives >= 0 && false_positives < 1 && !absent.empty(),
          "a threshold needs a share of false positives in [0, 1) and scores; got ", false_positives, " and ",
          absent.size(), " scores");
  std::vector<double> sorted(absent.begin(), absent.end());
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const auto allowed = static_cast<std::size_t>(false_positives * static_cast<double>(sorted.size()));
  return {std::nextafter(sorted[allowed], std::numeric_limits<double>::infinity()), true};
}

/// The share of `values` that `d` calls present.
inline double share_called(const decision& d, std::span<const double> values) {
  const auto above = static_cast<double>(detail::count_above(values, d.threshold)) / static_cast<double>(values.size());
  return d.above ? above : 1 - above;
}

/// The largest share of true positives that (epsilon, delta)-DP lets any adversary have at this share of false ones
/// (Kairouz, Oh and Viswanath 2015).
inline double true_positives_at_most(double epsilon, double delta, double false_positives) {
  const double f = false_positives;
  return std::min({1.0, std::exp(epsilon) * f + delta, 1 - std::exp(-epsilon) * (1 - delta - f)});
}

/// The area under that curve: what (epsilon, delta)-DP lets any adversary's auc() be in expectation, at most.
inline double auc_at_most(double epsilon, double delta) {
  // Two straight lines that meet at f on the falling diagonal, then 1 from 1 - delta on.
  const double f = (1 - delta) / (1 + std::exp(epsilon)), t = 1 - f;  // t = e^epsilon f + delta
  return f * (delta + t) / 2 + (1 - delta - f) * (t + 1) / 2 + delta;
}

}  // namespace dpsgd::audit
