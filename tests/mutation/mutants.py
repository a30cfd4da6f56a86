"""The planted bugs: where, what, and the test case that must notice. See run.py."""

TRAINER, CLIPPED = "train/trainer.cpp", "train/clipped_sum.cpp"
POLICIES, SAMPLING, NORMAL, LAYERS = "privacy/policies.cpp", "privacy/sampling.cpp", "core/normal.cpp", "nn/layers.cpp"
ADAPTIVE, ADAPTIVE_LAWS = "train/adaptive_clip.cpp", "privacy/adaptive_clip.cpp"
PLD, RDP, CSV = "accounting/pld.cpp", "accounting/rdp.cpp", "data/csv.cpp"
CORRELATED, CORRELATED_TRAIN = "privacy/correlated_noise.cpp", "train/correlated_noise.cpp"
CORRELATED_SPENT, FILTER = "accounting/correlated.cpp", "accounting/filter.cpp"
DISCRETE, EXACT = "core/discrete_gaussian.cpp", "train/exact.cpp"

# Laws, by the test cases that hold them.
DEVIATION = (TRAINER, "the noise on each coordinate has standard deviation*")
NOBODY = (TRAINER, "a step that draws nobody is a step*")
OWN_NOISE = (TRAINER, "each step draws noise of its own")
OWN_SAMPLE = (TRAINER, "each step draws a sample of its own*")
RANKS_WITHOUT = (TRAINER, "without noise every number of ranks*")
RANKS_WITH = (TRAINER, "with noise all ranks end with the same bits*")
NEIGHBOUR = (TRAINER, "blanking one row moves the released sum*")
FRESH = (TRAINER, "every fit draws a fresh key*")
RESUMED_CLAIM = (TRAINER, "a resumed run claims all its steps")
COUNTED_FIRST = (TRAINER, "at every step the ledger on the disk counts*")
CUT_AND_RESUMED = (TRAINER, "a seeded run that is cut and resumed*")
SUM = (CLIPPED, "the clipped sum is the sum of each example's clipped gradient")
FINITE_DIFFERENCES = (CLIPPED, "the gradient that is clipped is the loss's*")
TILES = (CLIPPED, "the result has the same bits whatever the tile*")
SENSITIVITY = (CLIPPED, "no example contributes more than the sensitivity*")
NOT_FINITE = (CLIPPED, "a gradient that is not finite counts as zero*")
LAYER_BOUNDS = (CLIPPED, "a clip by layer keeps each layer's bound*")
QUANTILE = (ADAPTIVE, "the bound converges to the stated quantile*")
COUNT_DEVIATION = (ADAPTIVE, "the noise on the clip's own coordinates*")
BOUND_OF_THE_STEP = (ADAPTIVE, "noise, sensitivity and the optimizer's facts*")
COUNTED_NEIGHBOUR = (ADAPTIVE, "blanking one row moves gradient and count together*")
ONE_EVENT = (ADAPTIVE, "the claim of an adaptive clip is that of one event*")
KEPT_BOUND = (ADAPTIVE, "a resumed run goes on with the bound that it had*")
BOUNDS_ALIKE = (ADAPTIVE, "without noise every number of ranks*")
JOINT_LAW = (ADAPTIVE_LAWS, "an adaptive clip keeps its joint sensitivity*")
JOINT = (CLIPPED, "no example moves gradient and the clip's own coordinates*")
NOT_COUNTED = (CLIPPED, "an example whose gradient is not finite is not counted")
EPOCHS = (RDP, "steps of an epoch are one Gaussian together*")
FIXED_SIZE = (RDP, "a fixed size spends 20.99*")
CLIP_LAW = (POLICIES, "clips keep their sensitivity*")
NOISE_LAW = (POLICIES, "gaussian noise has its standard deviation*")
SHARDS = (SAMPLING, "any cut into shards draws the same records*")
RATE = (SAMPLING, "every record joins with probability q*")
STEPS_DIFFER = (SAMPLING, "steps and keys draw differently")
TAILS = (NORMAL, "the radius reaches both ends*")
LAYER_LAW = (LAYERS, "every layer obeys the laws of a layer")
LOSS_LAW = (LAYERS, "a loss's gradient is that of its value*")
ONE_STEP = (PLD, "one sampled step*")
ALL_NOISE = (TRAINER, "of gradients that are all noise adam takes*")
OTHER_OWNERS = (TRAINER, "runs for different owners of the same rows*")
OWN_EVENT = (TRAINER, "an event of a user's own covers owners*")
MOVED_CLIP = (TRAINER, "a clip whose bound is moved from outside*")
LEAST_EXACT = (EXACT, "exact steps on top of idealised ones*")
GRID = (EXACT, "a noise whose grid does not hold the sensitivity*")
OWNERS = (TRAINER, "data with owners*")
OWNERS_STEP = (PLD, "several rows of one owner: one step*")
OWNERS_READ = (CSV, "of each owner the first rows are read*")
ORACLE = (PLD, "the oracle's epsilon lies in the interval*")
COIN = (DISCRETE, "a coin compares its fraction*")
UNIFORM = (DISCRETE, "uniform numbers below n are unbiased*")
SMALL_SIGMA = (DISCRETE, "at sigma 1, 2, 3 and 7 every value has its exact probability*")
NO_DEPENDENCE = (DISCRETE, "mean 0, variance sigma^2, tails, and no dependence*")
WHOLE_CHECK = (EXACT, "an example that is longer than the bound on the grid counts as zero*")
GRID_SUM = (EXACT, "the sum on the grid is exactly that of its examples*")
ROUNDED_UP = (POLICIES, "discrete noise rounds its multiplier up*")
EXACT_RATE = (SAMPLING, "exact Poisson sampling joins with probability q*")
WHOLE_ORDERS = (RDP, "with one discrete event in it*")
STATED_COVARIANCE = (CORRELATED, "correlated noise has the covariance that it states*")
MOVED_BY_ROW = (CORRELATED, "no entry of C is negative, and what a row moves*")
EXPLICIT_INVERSE = (CORRELATED, "for longer runs it agrees with the explicit inverse*")
NO_BANDS = (CORRELATED, "impossible numbers of bands*")
RELEASED_COVARIANCE = (CORRELATED_TRAIN, "the noise that is released has the stated covariance*")
FIXED_BINS = (CORRELATED_TRAIN, "every record joins each so many steps*")
KEY_BY_KEY = (CORRELATED_TRAIN, "a run is claimed as one Gaussian for each of its keys*")
ONE_GAUSSIAN = (CORRELATED_SPENT, "steps of correlated noise under one key*")
ONE_AT_A_TIME = (CORRELATED_SPENT, "calibration answers for all steps of one key*")
ONE_ORDER = (FILTER, "where all is fixed beforehand*")
SHARED_DELTA = (FILTER, "several orders admit what one of them does*")


def mutant(name, killers, *changes):
    return {"name": name, "killers": killers, "changes": changes}


NOISE, RELEASE, RUN, CLIP, SUMS = ("privacy/noise.hpp", "train/release.hpp", "train/run.hpp", "privacy/clip.hpp",
                                   "train/clipped_sum.hpp")
COMPUTATION = "train/computation.hpp"
ADAPTS = "privacy/adaptive_clip.hpp"
DEVIATION_LINE = "const auto deviation = static_cast<float>(multiplier * sensitivity);"
NOISED = "(sum[i] + drawn[i - begin]) * scale"
DRAW = "noise.draw(stream, static_cast<std::uint32_t>(block), sensitivity, drawn);"
COUNT = """          release(use_.noise, noise, sensitivity_, expected_batch_, detail::clip_rule<clip_type>{clip_, k}, size_ + k,
                  1, sum_.data(), parameters_.data(), std::array<float*, 0>{});"""
LOST = "    b.add_sum(lost, not_finite);\n"
DRAWN = "    drawn_ += static_cast<double>(rows_.size());\n"
SAMPLE = "use_.sampling.draw(stream, data_, rows_);"
SAMPLE_STREAM = "here_.draw({key_, domain::sampling, at_ - key_from_, 0});"
SPEND = "    spent.add(event_, steps - key_from_);\n"
KEY = "else if (root_) key_ = random_key::fresh();"

MUTANTS = [
    # Noise
    mutant("sigma not times bound", [DEVIATION], (NOISE, DEVIATION_LINE, DEVIATION_LINE.replace(" * sensitivity", ""))),
    mutant("bound squared", [DEVIATION],
           (NOISE, DEVIATION_LINE, DEVIATION_LINE.replace("* sensitivity", "* sensitivity * sensitivity"))),
    mutant("last bias un-noised", [DEVIATION],
           (RELEASE, NOISED, "(sum[i] + (i + 1 == first + count ? 0.0f : drawn[i - begin])) * scale")),
    mutant("one stream for all blocks", [DEVIATION], (RELEASE, DRAW, DRAW.replace("(block)", "(block * 0)"))),
    mutant("same seed on every rank", [DEVIATION],
           (RELEASE, DRAW, DRAW.replace("(block)", "(block - first / Noise::block_size)"))),
    mutant("each rank adds full sigma", [DEVIATION],
           (RUN, "    vector_.reduce(sum_.data());\n", """    {
      float drawn[160];
      for (std::size_t i = 0; i < size_; ++i) {
        if (i % 160 == 0)
          use_.noise.draw({key_, domain::noise, at_ - key_from_, static_cast<std::uint32_t>(1000 + use_.world.rank())},
                          static_cast<std::uint32_t>(i / 160), sensitivity_, drawn);
        sum_[i] += drawn[i % 160];
      }
    }
    vector_.reduce(sum_.data());
""")),
    mutant("sigma over the number of ranks", [DEVIATION],
           (RUN, "here_.release(noise, sensitivity_,", "here_.release(noise, sensitivity_ / use_.world.size(),")),
    mutant("sum-calibrated noise on the mean", [DEVIATION], (RELEASE, NOISED, "(sum[i] * scale + drawn[i - begin])")),
    mutant("mean-calibrated noise on the sum", [DEVIATION],
           (RELEASE, NOISED, "(sum[i] + drawn[i - begin] * scale) * scale")),
    mutant("key reused by every fit", [FRESH], (RUN, KEY, KEY.replace("fresh()", "from_seed(7)"))),
    mutant("the same noise every step", [OWN_NOISE],
           (RUN, "noise{key_, domain::noise, at_ - key_from_, 0}", "noise{key_, domain::noise, 0, 0}")),
    mutant("truncated tails: a radius of 24 bits", [TAILS],
           ("core/normal.hpp", "square_root(-2.0f * log_of_bits(high, low))",
            "square_root(-2.0f * log_of_bits(high & 0xffffff00u, 0x80000000u))")),
    mutant("truncated tails: a radius of 32 bits", [TAILS],
           ("core/normal.hpp", "square_root(-2.0f * log_of_bits(high, low))",
            "square_root(-2.0f * log_of_bits(high, 0x80000000u))")),
    mutant("noise only on non-zero coordinates", [DEVIATION],
           (RELEASE, NOISED, "(sum[i] == 0 ? 0.0f : sum[i] + drawn[i - begin]) * scale")),
    # Clip
    mutant("clip by the mean norm of the tile", [SUM],
           (SUMS, LOST, LOST + """
    float mean = 0;
    for (std::size_t i = 0; i < n; ++i) mean += factor_[i] / static_cast<float>(n);
    for (std::size_t i = 0; i < n; ++i) factor_[i] = mean;
""")),
    mutant("clip by micro-batches of two", [SUM],
           (SUMS, LOST, LOST + """
    for (std::size_t i = 1; i < n; i += 2) factor_[i] = factor_[i - 1] = (factor_[i - 1] + factor_[i]) / 2;
""")),
    mutant("bias left out of the norm", [SUM, LAYER_LAW],
           ("nn/linear.hpp", "{ b.add_outer_norms(x, dy, norm2); }",
            """{
    b.add_outer_norms(x, dy, norm2);
    for (std::size_t r = 0; r < x.rows; ++r)
      for (std::size_t c = 0; c < dy.cols; ++c) norm2[r] -= dy(r, c) * dy(r, c);
  }""")),
    mutant("only the last layer's norm", [SUM],
           (SUMS, "        if constexpr (bounded<Clip>) add_norms(l, tensor, x, dy, part(norm2_, group_of<Clip>(tensor), n));",
            "        if constexpr (bounded<Clip>) b.zero(part(norm2_, 0, n)), add_norms(l, tensor, x, dy, part(norm2_, 0, n));")),
    mutant("bound per layer without 1 / sqrt(layers)", [CLIP_LAW],
           (CLIP, "return bound / std::sqrt(static_cast<double>(groups));", "return bound + 0 * static_cast<double>(groups);")),
    mutant("a layer's clip sees the whole sensitivity", [LAYER_BOUNDS],
           (SUMS, "limit = clip.group_bound(g, groups);", "limit = clip.sensitivity().value;")),
    mutant("no min(1, .)", [CLIP_LAW],
           (CLIP, "return bound / (norm > bound ? norm : bound);", "return bound / (norm > 1e-9 ? norm : 1e-9);")),
    mutant("mean loss before clipping", [LOSS_LAW, FINITE_DIFFERENCES],
           ("nn/losses.hpp", "dy(r, 0) = sigmoid(y(r, 0)) - label(r, 0);",
            "dy(r, 0) = (sigmoid(y(r, 0)) - label(r, 0)) / static_cast<float>(y.rows);")),
    mutant("NaN example let through", [NOT_FINITE],
           (SUMS, "return square <= 3.4028234e38f;", "return square != 1e38f;")),
    mutant("0 x inf", [NOT_FINITE], (SUMS, "      b.clear_rows(factor, x);", "      // b.clear_rows(factor, x);")),
    mutant("a lying factor is trusted", [SENSITIVITY],
           (SUMS, "const double use = wanted < most ? wanted : most;", "const double use = wanted;")),
    # The adaptive clip's query
    mutant("adaptive clip's query free", [JOINT_LAW],
           (ADAPTS, "return {bound * std::sqrt(1 + share * share / 4)};", "return {bound};")),
    mutant("adaptive clip as a separate event", [ONE_EVENT],
           (RUN, SPEND, """      if constexpr (requires { clip_.share, event_.event.multiplier; }) {
        auto gradient = event_, count = event_;
        gradient.event.multiplier *= std::sqrt(1 + clip_.share * clip_.share / 4);
        count.event.multiplier = gradient.event.multiplier * 2 / clip_.share;
        spent.add(gradient, steps - key_from_), spent.add(count, steps - key_from_);
      } else {
        spent.add(event_, steps - key_from_);
      }
""")),
    mutant("adaptive clip's query not accounted", [ONE_EVENT],
           (RUN, SPEND, """      auto gradient = event_;
      if constexpr (requires { clip_.share, event_.event.multiplier; })
        gradient.event.multiplier *= std::sqrt(1 + clip_.share * clip_.share / 4);
      spent.add(gradient, steps - key_from_);
""")),
    mutant("the count's sensitivity half of what it is", [JOINT_LAW],
           (ADAPTS, "(norm <= bound ? 0.5 : -0.5)", "(norm <= bound ? 1.0 : 0.0)"),
           (ADAPTS, "mean / (share * bound) + 0.5", "mean / (share * bound)")),
    mutant("the count un-noised", [COUNT_DEVIATION],
           (RUN, COUNT, "          parameters_[size_ + k] = static_cast<float>(clip_.next(k, sum_[size_ + k] / expected_batch_));")),
    mutant("the count noised as the first weight", [COUNT_DEVIATION],
           (RUN, COUNT, """        {
          float drawn[160];
          use_.noise.draw(noise, 0, sensitivity_, drawn);
          parameters_[size_ + k] =
              static_cast<float>(clip_.next(k, (sum_[size_ + k] + drawn[k]) / expected_batch_));
        }""")),
    mutant("noise of the first bound for ever", [BOUND_OF_THE_STEP],
           (RUN, "      sensitivity_ = clip_.sensitivity().value;\n", "")),
    mutant("the count per realised batch", [COUNTED_NEIGHBOUR],
           (RUN, "    if constexpr (extra > 0)\n      for (std::size_t k = 0; k < extra; ++k)\n        if (owns(size_ + k))",
            """    if constexpr (extra > 0)
      for (std::size_t k = 0; k < extra; ++k)
        if (sum_[size_ + k] *= static_cast<float>(expected_batch_ / (static_cast<double>(rows_.size()) + 1e-9));
            owns(size_ + k))""")),
    mutant("the gradient keeps the whole sensitivity beside the count", [JOINT],
           (SUMS, "      left -= double{c} * c;", "      left -= 0 * double{c} * c;")),
    mutant("a lying contribution is trusted", [JOINT],
           (SUMS, "if (left >= 0) return square_root(left);", "return square_root(left > 0 ? left : 0);")),
    mutant("an example that is not finite is counted", [NOT_COUNTED],
           (SUMS, "finite(norm2[i]) ? static_cast<float>(clip.contribution(norm, k)) : 0.0f",
            "static_cast<float>(clip.contribution(finite(norm2[i]) ? norm : 1e30, k))")),
    mutant("the bound moves away from the quantile", [QUANTILE],
           (ADAPTS, "std::exp(-rate * (fraction - quantile))", "std::exp(rate * (fraction - quantile))")),
    mutant("the count once for each rank", [BOUNDS_ALIKE],
           (RUN, "    vector_.reduce(sum_.data());\n",
            """    for (std::size_t k = 0; k < extra; ++k) sum_[size_ + k] *= static_cast<float>(use_.world.size());
    vector_.reduce(sum_.data());
""")),
    mutant("the bound begins anew on resume", [KEPT_BOUND],
           (RUN, "state_.parameters = {parameters_.data(), size_ + extra};", "state_.parameters = {parameters_.data(), size_};")),
    # Sampling
    mutant("empty batch redrawn", [NOBODY],
           (COMPUTATION, DRAWN, """
    for (std::uint32_t again = 1; rows_.empty() && again < 1000; ++again)
      rows_.push_back(static_cast<std::uint32_t>((stream.step * 1000003 + again) % data_.records()));
""" + DRAWN)),
    mutant("same mask on every rank", [RANKS_WITHOUT],
           (COMPUTATION, DRAWN, """
    rows_.clear();
    random_words coins(stream);
    for (std::size_t i = 0; i < data_.records(); ++i)
      if (coins.uniform() < use_.sampling.expected_batch(data_.all()) / static_cast<double>(data_.all()))
        rows_.push_back(static_cast<std::uint32_t>(i));
""" + DRAWN)),
    mutant("a mask of its own on every rank", [RANKS_WITHOUT],
           (RUN, SAMPLE_STREAM, SAMPLE_STREAM.replace("at_", "at_ + 1000003ull * use_.world.rank()", 1))),
    mutant("divisor from the local count", [RANKS_WITHOUT],
           (RUN, "expected_batch_(cast.sampling.expected_batch(data.all()))",
            "expected_batch_(cast.sampling.expected_batch(data.records()))")),
    mutant("generator reset each epoch", [OWN_SAMPLE],
           (RUN, SAMPLE_STREAM, SAMPLE_STREAM.replace("at_ - key_from_", "at_ % 10"))),
    mutant("a row dropped to fit", [SHARDS, RATE],
           ("privacy/sampling.hpp", "if (const auto row = records.locate(at); row >= 0) rows.push_back",
            "if (const auto row = records.locate(at); row >= 0 && rows.size() < 60) rows.push_back")),
    mutant("fixed size instead of Poisson", [RATE],
           ("privacy/sampling.hpp", "        at += static_cast<std::uint64_t>(gap);",
            "        at += static_cast<std::uint64_t>(1 / rate - 1 + 0 * gap);")),
    # Exact mode
    mutant("a clip's count left out of the check in whole numbers", [WHOLE_CHECK],
           (SUMS, "for (std::size_t k = 0; k < extra; ++k) square += contributed(k, r) * contributed(k, r);", "")),
    mutant("no check in whole numbers", [WHOLE_CHECK],
           (SUMS, "if (square <= most * most)", "if (square <= most * most || n > 0)")),
    mutant("a check against twice the square", [WHOLE_CHECK],
           (SUMS, "if (square <= most * most)", "if (square <= 2 * most * most)")),
    mutant("a sub-stream shared by all coordinates", [NO_DEPENDENCE],
           ("core/discrete_gaussian.hpp", "state[13][l] = (first_ + l) << 8", "state[13][l] = (first_ * 0) << 8")),
    mutant("a coin that stops after 32 bits", [COIN],
           ("core/discrete_gaussian.hpp", "if (low + denominator <= goal) return true;",
            "if (low + denominator <= goal || numerator > 0) return true;")),
    mutant("uniform numbers without a rejection", [UNIFORM],
           ("core/discrete_gaussian.hpp", "if (rest >= n || rest >= -n % n) return",
            "if (rest >= n || rest < n) return")),
    mutant("a zero of two signs", [SMALL_SIGMA],
           ("core/discrete_gaussian.hpp", "if (negative && u == 0 && v == 0) continue;", "")),
    mutant("discrete Laplace noise for discrete Gaussian", [SMALL_SIGMA],
           ("core/discrete_gaussian.hpp", "if (!keep) continue;", "")),
    mutant("discrete sigma rounded down", [ROUNDED_UP],
           ("privacy/discrete_noise.hpp", "return whole + (static_cast<double>(whole) < exact);", "return whole;")),
    mutant("discrete sigma not times bound", [ROUNDED_UP],
           ("privacy/discrete_noise.hpp", "return sensitivity / static_cast<double>(units);",
            "return 1 / static_cast<double>(units) + 0 * sensitivity;")),
    mutant("fractional orders for the discrete event", [WHOLE_ORDERS],
           ("accounting/rdp.hpp", "    whole_orders_ = whole_orders_ || whole_orders_alone<Event>;\n", "")),
    mutant("exact sampling by 16 bits alone", [EXACT_RATE],
           ("privacy/sampling.hpp", "if (number == below && !further_bits_join(stream, position)) continue;",
            "if (number == below) continue;")),
    mutant("whole numbers added up in floats", [GRID_SUM],
           (SUMS, "to[c] += t(r, c);", "to[c] = static_cast<Value>(static_cast<float>(to[c]) + "
            "static_cast<float>(t(r, c)));")),
    # Scale
    mutant("divided by the realised batch", [NEIGHBOUR, DEVIATION],
           (COMPUTATION, "dpsgd::release(use_.noise, stream, sensitivity, expected_batch,",
            "dpsgd::release(use_.noise, stream, sensitivity, rows_.empty() ? 1.0 : static_cast<double>(rows_.size()),")),
    mutant("world size twice", [RANKS_WITHOUT],
           (RUN, "here_.release(noise, sensitivity_, expected_batch_,",
            "here_.release(noise, sensitivity_, expected_batch_ * use_.world.size(),")),
    mutant("the optimizer told of the sum's noise, not the mean's", [ALL_NOISE],
           (RUN, "variance_of(use_.noise, sensitivity_, at_ - key_from_) / (expected_batch_ * expected_batch_)};",
            "variance_of(use_.noise, sensitivity_, at_ - key_from_)};")),
    mutant("the noise's deviation taken from the second moment", [ALL_NOISE],
           ("optim/adam.hpp", "correct_noise ? facts.noise_variance : 0", "correct_noise ? std::sqrt(facts.noise_variance) : 0")),
    # Accounting
    mutant("steps lost on resume", [RESUMED_CLAIM],
           (RUN, "report_.claim = claim_after(at_);", "report_.claim = claim_after(at_ - begun_at_);")),
    mutant("a begun epoch not counted", [EPOCHS],
           ("accounting/events.hpp", "return steps / whole + (steps % whole != 0);", "return steps / whole;")),
    mutant("a fixed size accounted with the whole multiplier", [FIXED_SIZE],
           ("accounting/rdp.hpp", "const double e2 = 4 / (s * s);", "const double e2 = 1 / (s * s);"),
           ("accounting/rdp.hpp", "2.0 * j * (j - 1) / (s * s)", "0.5 * j * (j - 1) / (s * s)")),
    mutant("the harder direction left out", [ONE_STEP, ORACLE],
           ("accounting/pld.hpp", "std::max({0.0, remove_.best.hi, add_.best.hi})};",
            "std::max({0.0, add_.best.hi})};")),
    mutant("optimistic rounding: lo for hi", [ORACLE],
           ("accounting/pld.hpp", "return {std::min(now.lo, now.hi), now.hi};",
            "return {std::min(now.lo, now.hi), std::min(now.lo, now.hi)};")),
    mutant("an owner's rows accounted as one", [OWNERS],
           ("train/run.hpp", "with_rows(cast.event(), rows_per_owner(data), owners_of_data(data))",
            "with_rows(cast.event(), 1)")),
    mutant("owners of different columns added up", [OTHER_OWNERS],
           ("accounting/events.hpp", "rows_ == 0 || owners_ == owners_of(event),", "rows_ >= 0,")),
    mutant("an unknown event taken for that of owners", [OWN_EVENT],
           ("accounting/events.hpp", "require(rows == 1, \"what this clip", "require(rows >= 1, \"what this clip")),
    mutant("exact steps speak for all", [LEAST_EXACT],
           ("accounting/claim.hpp", "if (accountant.exactness() == arithmetic::idealised)", "if (false)")),
    mutant("a clip that was moved is noised as before", [MOVED_CLIP], ("train/run.hpp", "    check_clip_stays();\n", "")),
    mutant("a grid that does not hold the sensitivity", [GRID],
           ("train/run.hpp", "most == std::round(most),", "true,")),
    mutant("an owner's rows in the batch never more than one", [OWNERS_STEP],
           ("accounting/pld.hpp", "sampled_gaussian_loss loss(e.q, e.s, tail_, e.rows);\n      loss_grid",
            "sampled_gaussian_loss loss(-std::expm1(e.rows * std::log1p(-e.q)), e.s, tail_, 1);\n      loss_grid")),
    mutant("each part counts an owner's rows by itself", [OWNERS_READ],
           ("data/csv.hpp", "(!counts || ++seen[owner] > columns.rows_per_owner()) && r >= first",
            "r >= first && (!counts || ++seen[owner] > columns.rows_per_owner())")),
    mutant("ledger written after the release", [COUNTED_FIRST],
           ("train/journal.hpp", "if (more > 0) book_->reserve(run_, more);",
            "if (more > 0 && done > begun_at_) book_->reserve(run_, done - begun_at_ - book_->granted(run_));")),
    mutant("a settled reservation is forgotten", [COUNTED_FIRST],
           ("train/run.hpp", "          granted_ = at_ + 1;  // what was reserved beyond is returned", "          ;")),
]

MUTANTS += [
    # Correlated noise
    mutant("earlier steps' words drawn anew in each step", [STATED_COVARIANCE, RELEASED_COVARIANCE],
           ("privacy/correlated_noise.hpp", "of_step.step -= lag;",
            "of_step.substream = static_cast<std::uint32_t>(lag);")),
    mutant("the same word for all lags", [RELEASED_COVARIANCE],
           ("privacy/correlated_noise.hpp", "of_step.step -= lag;", "")),
    mutant("correlated noise not times bound", [STATED_COVARIANCE],
           ("privacy/correlated_noise.hpp", "const auto scale = static_cast<float>(deviation);",
            "const auto scale = static_cast<float>(noise.multiplier + 0 * deviation);")),
    mutant("every row moves as if it joined once", [MOVED_BY_ROW, ONE_GAUSSIAN],
           ("accounting/participation.hpp", "moved[t] = c[t] + (t >= apart ? moved[t - apart] : 0);",
            "moved[t] = c[t];")),
    mutant("joins counted as if they were strangers", [MOVED_BY_ROW],
           ("accounting/participation.hpp", "square += moved[t] * moved[t];",
            "square += c[t] * c[t] * static_cast<double>((n - t - 1) / apart + 1);")),
    mutant("the separation ignored", [ONE_GAUSSIAN],
           ("accounting/events.hpp", "const auto apart = static_cast<std::uint64_t>(separation);",
            "const auto apart = steps;")),
    mutant("the tree's leaves not counted", [MOVED_BY_ROW],
           ("accounting/participation.hpp", "for (unsigned level = 0; steps >> level != 0; ++level) {",
            "for (unsigned level = 1; steps >> level != 0; ++level) {")),
    mutant("a tree's node moved twice counts twice, not four times", [MOVED_BY_ROW],
           ("accounting/participation.hpp", "square += 2.0 * static_cast<double>(count[level]) - 1;", "square += 1;")),
    mutant("only rows that join in the first step", [EXPLICIT_INVERSE],
           ("accounting/participation.hpp", "first < std::min(separation, steps); ++first", "first < 1; ++first")),
    mutant("correlated steps added up one by one", [ONE_GAUSSIAN],
           ("accounting/pld.hpp", "add(event.release(steps), 1);", "add(event.release(1), steps);")),
    mutant("a target filled step by step", [ONE_AT_A_TIME],
           ("accounting/calibrate.hpp",
            "if constexpr (one_release_event<Event>) return detail::keeps(detail::after(before, event, steps), target);",
            "if constexpr (false) return true;")),
    mutant("the steps of all keys taken for one key's", [KEY_BY_KEY],
           (RUN, "    for (const auto steps : earlier_) spent.add(event_, steps);\n", ""),
           (RUN, SPEND, SPEND.replace(" - key_from_", ""))),
    mutant("earlier keys taken for one", [KEY_BY_KEY],
           (RUN, "for (const auto steps : earlier_) spent.add(event_, steps);",
            "if (key_from_ > 0) spent.add(event_, key_from_);")),
    mutant("earlier keys forgotten", [KEY_BY_KEY],
           (RUN, "    for (const auto steps : earlier_) spent.add(event_, steps);\n", "")),
    mutant("bins thrown anew in each cycle", [FIXED_BINS], ("privacy/sampling.hpp", "    stream.step %= batches;", "    ;")),
    mutant("no bands taken for the tree", [NO_BANDS],
           ("privacy/correlated_noise.hpp", "    check();\n    return {multiplier, static_cast<double>(bands)};",
            "    return {multiplier, static_cast<double>(bands)};")),
    # The filter
    mutant("the best order chosen afterwards", [SHARED_DELTA],
           ("accounting/filter.hpp", "std::log(budget.delta / static_cast<double>(orders.size()))",
            "std::log(budget.delta)")),
    mutant("what was admitted is not counted", [ONE_ORDER],
           ("accounting/filter.hpp", "    *this = std::move(after);\n", "")),
    mutant("an order's bound half as much again", [ONE_ORDER, SHARED_DELTA],
           ("accounting/filter.hpp", "b.used * (1 + margin) <= b.most",
            "b.used * (1 + margin) <= 1.5 * b.most")),
]

HARMLESS = [
    mutant("tiles of 24 rows", [], (SUMS, "tape_(b, model, rows),", "tape_(b, model, rows < 24 ? rows : 24),")),
    mutant("another key from a seed", [], ("core/random.hpp", "0x64736565u", "0x12345678u")),
    mutant("larger cells of sampling", [], ("privacy/sampling.hpp", "* rate < 32.0", "* rate < 128.0")),
    mutant("sums in other lumps", [], ("comm/execute.hpp", "constexpr std::size_t lump = 64;",
                                       "constexpr std::size_t lump = 16;")),
    mutant("a more patient wait", [], ("comm/waiting.hpp", "int spins = 100;", "int spins = 1000;")),
    mutant("no prefetch", [], ("cpu/backend.hpp", "constexpr std::size_t ahead = 16;",
                               "constexpr std::size_t ahead = 1;")),
    mutant("smaller reservations", [], ("accounting/ledger.hpp", "target / 20)", "target / 40)")),
    mutant("rows in reverse", [], (COMPUTATION, SAMPLE, SAMPLE + " std::reverse(rows_.begin(), rows_.end());")),
    mutant("noise of another substream", [],
           (RUN, "{key_, domain::noise, at_ - key_from_, 0}", "{key_, domain::noise, at_ - key_from_, 1}")),
    mutant("finer grids of the accountant", [], ("accounting/pld.hpp", "double fineness = 128;",
                                                 "double fineness = 256;")),
]
