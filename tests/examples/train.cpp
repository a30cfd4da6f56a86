/// train_mlp and predict from end to end: ranks, resuming, stopping, the ledger, results.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "dpsgd/accounting/ledger.hpp"
#include "dpsgd/data/schema_json.hpp"
#include "dpsgd/dpsgd.hpp"
#include "dpsgd/nn/model_file.hpp"
#include "examples/programs.hpp"

using namespace test;

namespace {

const bool no_mpi = std::string_view(DPSGD_MPIEXEC).empty();  // MPI is not installed here

nlohmann::json results(const workplace& place, const std::string& name = "results.json") {
  return nlohmann::json::parse(contents(place / name));
}

/// |a - b| / |a| of the parameters of two saved models.
double distance(const std::string& a, const std::string& b) {
  const auto left = dpsgd::load_model(a).model, right = dpsgd::load_model(b).model;
  double off = 0, all = 0;
  REQUIRE(left.parameters().size() == right.parameters().size());
  for (std::size_t i = 0; i < left.parameters().size(); ++i) {
    off += std::pow(left.parameters()[i] - right.parameters()[i], 2);
    all += std::pow(left.parameters()[i], 2);
  }
  return std::sqrt(off / all);
}

/// All steps in the ledger of task's data.
std::uint64_t steps_in_ledger(const small_task& task) {
  const auto columns = dpsgd::read_schema(task / "schema.json");
  const auto data = dpsgd::read_csv(task / "data.csv", columns);
  const dpsgd::ledger book(task / "data.csv.ledger", data.digest().hex(), data.universe());
  std::uint64_t steps = 0;
  for (const auto& run : book.runs()) steps += run.steps;
  return steps;
}

}  // namespace

TEST_CASE("saved models come back bit by bit, and damage shows") {
  const workplace place;
  for (const auto& activation :
       {dpsgd::mlp::activation(dpsgd::relu{}), dpsgd::mlp::activation(dpsgd::leaky_relu{{0.2f}}),
        dpsgd::mlp::activation(dpsgd::tanh{})})
    for (const auto& loss :
         {dpsgd::any_loss{dpsgd::sigmoid_cross_entropy{}}, dpsgd::any_loss{dpsgd::softmax_cross_entropy{}},
          dpsgd::any_loss{dpsgd::squared_error{}}}) {
      dpsgd::mlp model({3, 5, 4, 2}, {.activation = activation, .loss = loss, .seed = 9});
      dpsgd::save_model(model, place / "model", "a note");
      const auto back = dpsgd::load_model(place / "model");
      CHECK(back.note == "a note");
      CHECK(std::equal(model.parameters().begin(), model.parameters().end(), back.model.parameters().begin()));
      CHECK(std::ranges::equal(model.widths(), back.model.widths()));
      CHECK(back.model.loss().chosen.index() == loss.chosen.index());
      REQUIRE(back.model.layers()[1].index() == model.layers()[1].index());
      if (const auto* leaky = std::get_if<dpsgd::leaky_relu>(&back.model.layers()[1]))
        CHECK(leaky->function.below == 0.2f);
    }
  dpsgd::save_model(dpsgd::mlp({4, 1}), place / "flat");  // no hidden layer
  CHECK(dpsgd::load_model(place / "flat").model.parameters().size() == 5);

  const auto good = contents(place / "model");
  write(place / "cut", good.substr(0, good.size() - 9));
  CHECK_THROWS_WITH_AS(dpsgd::load_model(place / "cut"), doctest::Contains("cut off or damaged"), dpsgd::error);
  auto flipped = good;
  flipped[good.size() / 2] ^= 4;
  write(place / "flipped", flipped);
  CHECK_THROWS_WITH_AS(dpsgd::load_model(place / "flipped"), doctest::Contains("cut off or damaged"), dpsgd::error);
  write(place / "other", "something else");
  CHECK_THROWS_WITH_AS(dpsgd::load_model(place / "other"), doctest::Contains("this is no dpsgd-model"), dpsgd::error);
}

TEST_CASE("help and version") {
  const workplace place;
  for (const char* name : {"train_mlp", "predict"}) {
    const auto help = run(place, {program(name), "--help"});
    CHECK(help.status == 0);
    CHECK(help.out.find("--schema") != std::string::npos);
    const auto version = run(place, {program(name), "--version"});
    CHECK(version.status == 0);
    CHECK(version.out.find(dpsgd::version) != std::string::npos);
  }
}

TEST_CASE("every clipping trains and says so; the adaptive one's last bound is reported, and kept when it is resumed") {
  for (const std::string clipping : {"flat", "automatic", "psac", "adaptive"}) {
    const small_task task;
    const auto train = [&](const words& more) {
      words all{"--clipping",         clipping, "--json",       task / "results.json",
                "--noise-multiplier", "1",      "--checkpoint", task / "kept"};
      all.insert(all.end(), more.begin(), more.end());
      const auto result = run(task, task.train(all));
      REQUIRE_MESSAGE(result.status == 0, result.err);
      CHECK((result.out.find("clip bound: 1 at first, ") != std::string::npos) == (clipping == "adaptive"));
      return results(task);
    };
    const auto j = train({"--ranks", "2", "--steps", "100"});
    CHECK(j["settings"]["clipping"] == clipping);
    CHECK(j["private"] == true);
    CHECK(j["test_accuracy"].get<double>() > 0.6);
    CHECK(j["final_clip"].is_null() == (clipping != "adaptive"));
    if (clipping != "adaptive") continue;
    CHECK(j["settings"]["clip_quantile"] == 0.8);
    CHECK(j["final_clip"].get<double>() != 1);
    const auto resumed = train({"--steps", "101", "--resume"});
    CHECK(resumed["final_clip"].get<double>() == doctest::Approx(j["final_clip"].get<double>()).epsilon(0.5));
    CHECK(resumed["epsilon"].get<double>() > j["epsilon"].get<double>());
  }
  const small_task task;
  const auto refused = [&](const words& more, const char* why) {
    const auto result = run(task, task.train(more));
    CHECK(result.status == 2);
    CHECK_MESSAGE(result.err.find(why) != std::string::npos, result.err);
  };
  refused({"--clip-quantile", "0.5"}, "--clipping adaptive");
  refused({"--clipping", "adaptive", "--clip-quantile", "1"}, "must lie in [0, 1)");
  refused({"--clipping", "per_layer"}, "per_layer");
  refused({"--clipping", "adaptive", "--no-privacy"}, "--no-privacy");
}

TEST_CASE("a run with defaults: what it says, its JSON, its ledger") {
  const small_task task;
  const auto result = run(task, task.train({"--json", task / "results.json", "--save", task / "model"}));
  REQUIRE_MESSAGE(result.status == 0, result.err);
  CHECK(result.out.find("(not private)") != std::string::npos);
  CHECK(result.out.find(
            "privacy: (epsilon 3, delta 0.001)-DP, unit: one row, zero-out adjacency, Poisson sampling, PLD") !=
        std::string::npos);
  CHECK(result.out.find("s per epoch, ") != std::string::npos);
  CHECK(result.out.find(" records per second") != std::string::npos);
  CHECK(result.err.find("step ") != std::string::npos);
  CHECK(result.err.find("epsilon so far") != std::string::npos);

  const auto j = results(task);
  for (const char* key :
       {"test_accuracy", "majority_accuracy", "epsilon", "epsilon_all_runs", "delta", "private", "claim", "steps",
        "ranks", "records", "seconds_read", "seconds_per_epoch", "records_per_second", "peak_rss_mib", "settings"})
    CHECK_MESSAGE((j.contains(key) && !j[key].is_null()), key);
  CHECK(j["private"] == true);
  CHECK(j["records"] == 800);
  CHECK(j["ranks"] == 1);
  CHECK(j["delta"] == 1e-3);  // the largest power of ten below 1/800
  CHECK(j["epsilon"].get<double>() <= 3);
  CHECK(j["epsilon"].get<double>() > 2.99);
  CHECK(j["epsilon_all_runs"] == j["epsilon"]);
  CHECK(j["test_accuracy"].get<double>() > 0.75);  // a tenth of the labels is turned; majority is near 0.5
  CHECK(j["majority_accuracy"].get<double>() < 0.65);
  CHECK(j["steps"] == steps_in_ledger(task));
  // The model carries its claim.
  CHECK(dpsgd::load_model(task / "model").note.starts_with(std::string(j["claim"]) + "\nschema "));
}

TEST_CASE("not private: what is infinite is null, and the ledger is left alone unless it is named") {
  const small_task task;
  for (const auto& kind : {words{"--no-privacy"}, words{"--insecure-seed", "3"}}) {
    CAPTURE(kind[0]);
    const auto result = run(task, task.train({"--steps", "5", "--json", task / "results.json"}) + kind);
    REQUIRE_MESSAGE(result.status == 0, result.err);
    CHECK(result.err.find("warning: this run is not private and no ledger counts it") != std::string::npos);
    CHECK(result.out.find("privacy: not private") != std::string::npos);
    const auto j = results(task);
    CHECK(j["epsilon"].is_null());
    CHECK(j["epsilon_all_runs"].is_null());
    CHECK(j["private"] == false);
    CHECK_FALSE(fs::exists(task / "data.csv.ledger"));
  }
  // Named, the ledger keeps it for ever: a later private run cannot stay within any budget.
  REQUIRE(
      run(task, task.train({"--steps", "5", "--insecure-seed", "3", "--ledger", task / "data.csv.ledger"})).status ==
      0);
  const auto later = run(task, task.train({"--steps", "5", "--json", task / "results.json"}));
  REQUIRE_MESSAGE(later.status == 0, later.err);
  CHECK(results(task)["epsilon"].get<double>() <= 3);
  CHECK(results(task)["epsilon_all_runs"].is_null());
  CHECK(run(task, task.train({"--steps", "5", "--budget", "1000"})).status == 1);
}

TEST_CASE("--json - : stdout is JSON alone") {
  const small_task task;
  const auto result = run(task, task.train({"--steps", "5", "--json", "-"}));
  REQUIRE(result.status == 0);
  CHECK(nlohmann::json::parse(result.out)["steps"] == 5);
  CHECK(result.err.find("test accuracy") != std::string::npos);
}

TEST_CASE("a seeded run: the same model at any number of ranks, and again the same bits") {
  const small_task task;
  const words seeded{"--steps", "60", "--insecure-seed", "5", "--optimizer", "sgd", "--save"};
  REQUIRE(run(task, task.train(seeded + words{task / "one"})).status == 0);
  REQUIRE(run(task, task.train(seeded + words{task / "again"})).status == 0);
  CHECK(contents(task / "one") == contents(task / "again"));
  for (const char* ranks : {"2", "3"})
    for (const char* algorithm : {"circulant", "naive", "double_tree", "hierarchical", "native", "auto"}) {
      CAPTURE(ranks);
      CAPTURE(algorithm);
      const auto result = run(task, task.train(seeded + words{task / "more", "--ranks", ranks, "--allreduce", algorithm,
                                                              "--json", task / "j"}));
      REQUIRE_MESSAGE(result.status == 0, result.err);
      CHECK(results(task, "j")["ranks"] == std::stoi(ranks));
      CHECK(distance(task / "one", task / "more") < 1e-5);
      CHECK((result.err.find("allreduce: ") != std::string::npos) == (algorithm == std::string_view("auto")));
    }
  const auto other = words{"--steps", "60", "--insecure-seed", "6", "--optimizer", "sgd", "--save", task / "other"};
  REQUIRE(run(task, task.train(other)).status == 0);
  CHECK(distance(task / "one", task / "other") > 1e-2);  // so the comparison can fail
}

TEST_CASE("a seeded run under mpirun: the same model, the same counts" * doctest::skip(no_mpi)) {
  const small_task task;
  const words seeded{"--steps", "60", "--insecure-seed", "5", "--optimizer", "sgd"};
  REQUIRE(run(task, task.train(seeded + words{"--save", task / "one", "--json", task / "j1"})).status == 0);
  const auto result = run(task, mpirun(2, task.train(seeded + words{"--save", task / "two", "--json", task / "j2"})));
  REQUIRE_MESSAGE(result.status == 0, result.err);
  CHECK(distance(task / "one", task / "two") < 1e-5);
  const auto one = results(task, "j1"), two = results(task, "j2");
  CHECK(two["ranks"] == 2);
  CHECK(two["settings"]["mpi"] == true);
  for (const char* key : {"records", "train_positions", "test_positions", "majority_accuracy", "steps"})
    CHECK_MESSAGE(one[key] == two[key], key);
  CHECK(std::abs(one["test_accuracy"].get<double>() - two["test_accuracy"].get<double>()) < 0.02);
}

TEST_CASE("exact mode: the same bits on any ranks, by threads or mpirun; its claim, and its runs in the ledger") {
  const small_task task;
  const words seeded{"--exact", "--steps", "20", "--insecure-seed", "5", "--save"};
  REQUIRE(run(task, task.train(seeded + words{task / "one"})).status == 0);
  for (const char* ranks : {"2", "3"}) {
    REQUIRE(run(task, task.train(seeded + words{task / "more", "--ranks", ranks, "--allreduce", "ring"})).status == 0);
    CHECK(contents(task / "one") == contents(task / "more"));
  }
  if (!no_mpi) {
    const auto result = run(task, mpirun(2, task.train(seeded + words{task / "mpi", "--allreduce", "native"})));
    REQUIRE_MESSAGE(result.status == 0, result.err);
    CHECK(contents(task / "one") == contents(task / "mpi"));
  }
  const words exact{"--exact", "--steps", "20", "--json", task / "j", "--ledger", task / "book"};
  REQUIRE(run(task, task.train(exact)).status == 0);
  const auto j = results(task, "j");
  CHECK(j["settings"]["exact"] == true);
  CHECK(j["claim"].get<std::string>().find("Poisson sampling, RDP, exact arithmetic") != std::string::npos);
  CHECK(j["epsilon"].get<double>() <= 3);
  CHECK(j["epsilon"].get<double>() > 2.9);
  // PLD cannot add up such runs to others; RDP adds up all.
  const words other{"--steps", "20", "--ledger", task / "book"};
  const auto refused = run(task, task.train(other));
  CHECK(refused.status == 1);
  CHECK(refused.err.find("train with --exact too") != std::string::npos);
  CHECK(run(task, task.train(exact + words{"--budget", "100"})).status == 0);
  CHECK(results(task, "j")["epsilon_all_runs"].get<double>() > 1.1 * j["epsilon"].get<double>());
  CHECK(run(task, task.train(exact + words{"--budget", "1"})).err.find("the budget does not allow this run") !=
        std::string::npos);
  CHECK(run(task, task.train({"--exact", "--no-privacy"})).status == 2);
}

TEST_CASE(
    "correlated noise: the noise that keeps epsilon, its claim, ledger and resuming, and what it does not go with") {
  const small_task task;
  const auto multiplier = [&](const words& noise) {
    const words all{"--batch-size", "60", "--epochs", "2", "--json", task / "j", "--ledger", task / "book"};
    const auto result = run(task, task.train(all + noise));
    REQUIRE_MESSAGE(result.status == 0, result.err);
    const auto j = results(task, "j");
    CHECK(j["epsilon"].get<double>() <= 3);
    CHECK(j["epsilon"].get<double>() > 2.99);
    CHECK(j["settings"]["sampling"] == "cyclic");
    CHECK(j["claim"].get<std::string>().find("correlated noise over cyclic sampling, PLD") != std::string::npos);
    const double batches = 1 / j["settings"]["sampling_rate"].get<double>();
    CHECK(batches == doctest::Approx(std::round(batches)));
    CHECK(j["steps"].get<double>() == doctest::Approx(2 * std::round(batches)));
    return j["settings"]["noise_multiplier"].get<double>();
  };
  // Independent noise: two releases. One Gaussian that keeps epsilon 3 at this delta has the multiplier over sqrt(2).
  const double independent = multiplier({"--sampling", "cyclic"});
  CHECK(multiplier({"--noise", "banded", "--bands", "1"}) == doctest::Approx(independent).epsilon(1e-5));
  const double banded = multiplier({"--noise", "banded", "--bands", "4", "--ranks", "2"});
  CHECK(banded > 1.1 * independent);
  CHECK(multiplier({"--noise", "tree"}) > banded);
  CHECK(results(task, "j")["epsilon_all_runs"].get<double>() > 3.5);

  // Cut by a target of steps and resumed: the claim composes two mechanisms.
  const words half{"--noise", "banded", "--noise-multiplier", "4", "--batch-size", "60", "--json", task / "j"};
  const words kept{"--checkpoint", task / "kept"};
  REQUIRE(run(task, task.train(half + kept + words{"--steps", "7"})).status == 0);
  const double first = results(task, "j")["epsilon"].get<double>();
  REQUIRE(run(task, task.train(half + kept + words{"--steps", "14", "--resume"})).status == 0);
  CHECK(results(task, "j")["epsilon"].get<double>() > 1.1 * first);
  const auto other = run(task, task.train(half + kept + words{"--steps", "14", "--resume", "--bands", "3"}));
  CHECK(other.status == 1);
  CHECK(other.err.find("this checkpoint is of another run") != std::string::npos);

  const auto refused = [&](const words& options, const char* says) {
    const auto result = run(task, task.train(options));
    CHECK(result.status == 2);
    CHECK_MESSAGE(result.err.find(says) != std::string::npos, result.err);
  };
  refused({"--noise", "banded", "--sampling", "poisson"}, "say --sampling cyclic, or --noise gaussian");
  refused({"--bands", "4"}, "say --noise banded");
  refused({"--noise", "tree", "--bands", "4"}, "say --noise banded");
  refused({"--noise", "banded", "--bands", "0"}, "--bands");
  refused({"--noise", "tree", "--exact"}, "--exact");
  refused({"--noise", "tree", "--no-privacy"}, "--no-privacy");
  const auto mistyped = run(task, task.train({"--noise", "banded", "--noise-multiplier", "1e40"}));
  CHECK(mistyped.status != 0);
  CHECK_MESSAGE(mistyped.err.find("the noise multiplier must lie in") != std::string::npos, mistyped.err);
}

TEST_CASE("adam that corrects for noise, and averages of the parameters, make another model for the same claim") {
  const small_task task;
  const auto model = [&](const words& more) {
    const auto done = run(
        task,
        task.train(words{"--insecure-seed", "5", "--save", task / "model", "--json", task / "results.json"} + more));
    REQUIRE_MESSAGE(done.status == 0, done.err);
    return dpsgd::load_model(task / "model").model;
  };
  const auto same = [](const dpsgd::mlp& a, const dpsgd::mlp& b) {
    return std::ranges::equal(a.parameters(), b.parameters());
  };
  const auto plain = model({"--steps", "40"});
  CHECK(results(task)["settings"]["average"] == "none");
  CHECK_FALSE(same(model({"--steps", "40", "--optimizer", "adam-bc"}), plain));
  CHECK(results(task)["settings"]["optimizer"] == "adam-bc");
  const auto tail = model({"--steps", "40", "--average", "tail"});
  CHECK(results(task)["settings"]["average"] == "tail");
  CHECK_FALSE(same(tail, plain));
  CHECK(same(model({"--steps", "40", "--average", "tail", "--ranks", "1"}), tail));
  CHECK_FALSE(same(model({"--steps", "40", "--average", "ema"}), plain));
  CHECK(same(model({"--steps", "1", "--average", "tail"}), model({"--steps", "1"})));  // of one step
  const auto kept = run(task, task.train({"--average", "tail", "--checkpoint", task / "kept"}));
  CHECK(kept.status == 2);
  CHECK(kept.err.find("--checkpoint") != std::string::npos);
  // A linear model starts at zero.
  auto linear = task.train({"--steps", "1", "--learning-rate", "1e-9", "--save", task / "linear"});
  *(std::find(linear.begin(), linear.end(), "--hidden") + 1) = "0";
  REQUIRE(run(task, linear).status == 0);
  const auto loaded = dpsgd::load_model(task / "linear").model;
  for (const float w : loaded.parameters()) CHECK(std::abs(w) < 1e-8f);
}

TEST_CASE("stopped by SIGTERM, and resumed: the bits of the run that was not stopped") {
  const small_task task;
  for (const char* optimizer : {"sgd", "adam"}) {
    CAPTURE(optimizer);
    const words seeded{"--steps", "20000",       "--batch-size", "16",      "--insecure-seed",
                       "5",       "--optimizer", optimizer,      "--ranks", "2"};
    const auto kept = task / (std::string("kept-") + optimizer);
    const words checkpointed{"--checkpoint", kept, "--checkpoint-every", "200", "--save", task / "resumed"};
    REQUIRE(run(task, task.train(seeded + words{"--save", task / "whole"})).status == 0);

    process training(task, task.train(seeded + checkpointed + words{"--json", task / "results.json"}));
    training.until([&] { return fs::exists(kept + "/latest.checkpoint"); });
    ::kill(training.pid(), SIGTERM);
    const auto stopped = training.wait();
    REQUIRE_MESSAGE(stopped.status == 3, stopped.err);
    CHECK(stopped.out.find("stopped after step ") != std::string::npos);
    CHECK(results(task)["stopped"] == true);
    CHECK(results(task)["steps"].get<int>() < 20000);
    CHECK_FALSE(fs::exists(task / "resumed"));  // only a whole run saves its model

    const auto resumed = run(task, task.train(seeded + checkpointed + words{"--resume"}));
    REQUIRE_MESSAGE(resumed.status == 0, resumed.err);
    CHECK(contents(task / "resumed") == contents(task / "whole"));
    fs::remove(task / "resumed");
  }
}

TEST_CASE("killed and resumed: the bits of the run that was not killed") {
  const small_task task;
  const words seeded{"--steps", "20000", "--batch-size", "16", "--insecure-seed", "5"};
  const words checkpointed{"--checkpoint", task / "kept", "--checkpoint-every", "200", "--save", task / "resumed"};
  REQUIRE(run(task, task.train(seeded + words{"--save", task / "whole"})).status == 0);
  process training(task, task.train(seeded + checkpointed));
  training.until([&] { return fs::exists(task / "kept/latest.checkpoint"); });
  ::kill(training.pid(), SIGKILL);
  REQUIRE(training.wait().status == 128 + SIGKILL);
  const auto resumed = run(task, task.train(seeded + checkpointed + words{"--resume"}));
  REQUIRE_MESSAGE(resumed.status == 0, resumed.err);
  CHECK(contents(task / "resumed") == contents(task / "whole"));
}

TEST_CASE("stopped without a checkpoint: it says that it cannot be resumed") {
  const small_task task;
  process training(task, task.train({"--steps", "100000000", "--batch-size", "16", "--insecure-seed", "5"}));
  training.until([&] { return training.err().find("step ") != std::string::npos; });
  ::kill(training.pid(), SIGINT);
  const auto stopped = training.wait();
  CHECK(stopped.status == 1);
  CHECK(stopped.err.find("cannot be resumed") != std::string::npos);
}

TEST_CASE("under mpirun a signal to one rank stops all at one step; another number of ranks goes on" *
          doctest::skip(no_mpi)) {
  const small_task task;
  const words seeded{"--steps", "20000", "--batch-size", "16", "--insecure-seed", "5", "--optimizer", "sgd"};
  const words checkpointed{"--checkpoint", task / "kept", "--checkpoint-every", "200", "--save", task / "resumed"};
  REQUIRE(run(task, task.train(seeded + words{"--save", task / "whole"})).status == 0);
  process job(task, mpirun(2, task.train(seeded + checkpointed)));
  job.until([&] { return fs::exists(task / "kept/latest.checkpoint"); });
  const auto one = job.rank(1);
  REQUIRE(one > 0);
  ::kill(one, SIGTERM);
  const auto stopped = job.wait();
  REQUIRE_MESSAGE(stopped.status == 3, stopped.err);
  CHECK(stopped.out.find("stopped after step ") != std::string::npos);
  const auto resumed = run(task, task.train(seeded + checkpointed + words{"--resume", "--ranks", "3"}));
  REQUIRE_MESSAGE(resumed.status == 0, resumed.err);
  // 20,000 steps let rounding grow: close, not equal.
  CHECK(distance(task / "whole", task / "resumed") < 0.05);
}

TEST_CASE("Ctrl-C at mpirun: the ranks leave a checkpoint, and it can be resumed" * doctest::skip(no_mpi)) {
  const small_task task;
  const words endless{"--steps",         "100000000", "--batch-size", "16",
                      "--insecure-seed", "5",         "--checkpoint", task / "kept"};
  // Open MPI waits as long before it passes the wish on (SIGTERM), and again before it kills.
  ::setenv("OMPI_MCA_odls_base_sigkill_timeout", "2", 1);
  process job(task, mpirun(2, task.train(endless)));
  ::unsetenv("OMPI_MCA_odls_base_sigkill_timeout");
  job.until([&] { return job.err().find("step ") != std::string::npos; });
  ::kill(job.pid(), SIGINT);
  const auto stopped = job.wait();
  CHECK(stopped.status != 0);  // mpirun's own
  REQUIRE_MESSAGE(fs::exists(task / "kept/latest.checkpoint"), stopped.err);

  process resumed(task, task.train(endless + words{"--resume"}));
  resumed.until([&] { return resumed.err().find("step ") != std::string::npos; });
  ::kill(resumed.pid(), SIGINT);
  CHECK(resumed.wait().status == 3);
}

TEST_CASE("the ledger adds up runs, resumes and stops; a budget refuses") {
  const small_task task;
  const words steps{"--steps", "40", "--noise-multiplier", "1.5", "--batch-size", "40"};
  const words json{"--json", task / "results.json"};
  REQUIRE(run(task, task.train(steps + json)).status == 0);
  const double once = results(task)["epsilon"], all_once = results(task)["epsilon_all_runs"];
  CHECK(once == all_once);
  CHECK(steps_in_ledger(task) == 40);
  REQUIRE(run(task, task.train(steps + json + words{"--seed", "2", "--ranks", "2"})).status == 0);
  CHECK(steps_in_ledger(task) == 80);
  const double all_twice = results(task)["epsilon_all_runs"];
  CHECK(all_twice > 1.2 * all_once);
  CHECK(all_twice < 2.0001 * all_once);  // composition is better than adding epsilons

  // One more fits this budget, two more do not; the refused run leaves the ledger as it is.
  const auto budget = std::to_string(1.35 * all_twice);
  REQUIRE(run(task, task.train(steps + json + words{"--budget", budget})).status == 0);
  CHECK(results(task)["epsilon_all_runs"].get<double>() <= std::stod(budget));
  const auto before = contents(task / "data.csv.ledger");
  const auto refused = run(task, task.train(steps + words{"--budget", budget}));
  CHECK(refused.status == 1);
  CHECK(contents(task / "data.csv.ledger") == before);

  // Stopped and resumed: 3,000 steps in all, and the ledger has exactly as many more.
  const words longer{"--steps",      "3000",        "--noise-multiplier", "8", "--batch-size", "40",
                     "--checkpoint", task / "kept", "--checkpoint-every", "50"};
  process training(task, task.train(longer));
  training.until([&] { return fs::exists(task / "kept/latest.checkpoint"); });
  ::kill(training.pid(), SIGTERM);
  REQUIRE(training.wait().status == 3);
  REQUIRE(run(task, task.train(longer + words{"--resume"} + json)).status == 0);
  CHECK(results(task)["steps"] == 3000);
  CHECK(steps_in_ledger(task) == 120 + 3000);
  words fewer = longer + words{"--resume"};
  fewer[1] = "10";
  const auto nothing = run(task, task.train(fewer));
  CHECK(nothing.status == 0);
  CHECK(nothing.err.find("3000 steps already, and 10 were asked for: nothing was trained") != std::string::npos);
  CHECK(steps_in_ledger(task) == 120 + 3000);

  // Killed: what was reserved and not settled stays counted. At most one reservation (a twentieth) more than ran.
  const words other{"--steps",      "3000",         "--noise-multiplier", "8", "--batch-size", "40",
                    "--checkpoint", task / "kept2", "--checkpoint-every", "50"};
  process doomed(task, task.train(other));
  doomed.until([&] { return fs::exists(task / "kept2/latest.checkpoint"); });
  ::kill(doomed.pid(), SIGKILL);
  doomed.wait();
  REQUIRE(run(task, task.train(other + words{"--resume"})).status == 0);
  CHECK(steps_in_ledger(task) >= 3120 + 3000);
  CHECK(steps_in_ledger(task) <= 3120 + 3000 + 150);
}

TEST_CASE("train until a target epsilon is spent") {
  const small_task task;
  REQUIRE(run(task, task.train({"--noise-multiplier", "2", "--target-epsilon", "1", "--batch-size", "40", "--json",
                                task / "results.json"}))
              .status == 0);
  const auto j = results(task);
  CHECK(j["epsilon"].get<double>() <= 1);
  CHECK(j["epsilon"].get<double>() > 0.9);
}

TEST_CASE("several classes and regression: the schema chooses loss and outputs") {
  const small_task task;
  write(task / "classes.json", R"({"columns": [{"name": "kind", "kind": "label", "classes": 3},
    {"name": "a", "kind": "numeric", "min": -100, "max": 100}, {"name": "y", "kind": "binary"}]})");
  write(task / "value.json", R"({"columns": [{"name": "b", "kind": "label", "min": -100, "max": 100},
    {"name": "a", "kind": "numeric", "min": -100, "max": 100}, {"name": "y", "kind": "binary"}]})");
  auto command =
      task.train({"--no-privacy", "--epochs", "20", "--save", task / "model", "--json", task / "results.json"});
  command[4] = task / "classes.json";
  REQUIRE(run(task, command).status == 0);
  CHECK(dpsgd::load_model(task / "model").model.outputs() == 3);
  CHECK(results(task)["test_accuracy"].is_number());
  command[4] = task / "value.json";
  const auto regression = run(task, command);
  REQUIRE_MESSAGE(regression.status == 0, regression.err);
  CHECK(regression.out.find("root mean square") != std::string::npos);
  CHECK(results(task)["test_accuracy"].is_null());
  CHECK(results(task)["test_rmse"].get<double>() < 55);  // guessing the mean: 58; y tells on which side b lies
  const auto guesses = run(task, {program("predict"), "--model", task / "model", "--schema", task / "value.json",
                                  "--csv", task / "data.csv"});
  REQUIRE_MESSAGE(guesses.status == 0, guesses.err);
  CHECK(guesses.out.starts_with("prediction\n"));
  CHECK(std::abs(std::stod(guesses.out.substr(11))) <= 150);  // in the label's own units
}

TEST_CASE("bad rows can be dropped: they are counted, and predictions keep their lines") {
  const small_task task;
  auto csv = contents(task / "data.csv");
  csv += "NA,1,0,x,1\n1,2,9,x,0\n1,2,2,x,0\n";
  write(task / "data.csv", csv);
  const auto result = run(task, task.train({"--drop-bad-rows", "--no-privacy", "--ranks", "2", "--json",
                                            task / "results.json", "--save", task / "model"}));
  REQUIRE_MESSAGE(result.status == 0, result.err);
  CHECK(result.out.find("rows dropped: 2 (not private)") != std::string::npos);
  CHECK(results(task)["dropped"] == 2);
  CHECK(results(task)["records"] == 803);  // dropped rows keep their place in N

  const words predict{program("predict"), "--model", task / "model", "--schema", task / "schema.json", "--csv"};
  const auto refused = run(task, predict + words{task / "data.csv"});
  CHECK(refused.status == 1);
  const auto guesses = run(task, predict + words{task / "data.csv", "--drop-bad-rows"});
  REQUIRE_MESSAGE(guesses.status == 0, guesses.err);
  CHECK(std::count(guesses.out.begin(), guesses.out.end(), '\n') == 804);
  CHECK(guesses.out.find("\nNA,NA\nNA,NA\n") != std::string::npos);
  CHECK_FALSE(guesses.out.ends_with("NA,NA\n"));  // the last row is good
}

TEST_CASE("predict: agrees with the library, with and without the label's column") {
  const small_task task;
  REQUIRE(run(task, task.train({"--no-privacy", "--save", task / "model"})).status == 0);
  std::string unlabelled;
  std::istringstream lines(contents(task / "data.csv"));
  for (std::string line; std::getline(lines, line);) unlabelled += line.substr(0, line.rfind(',')) + "\n";
  write(task / "new.csv", unlabelled);
  const words predict{program("predict"), "--model", task / "model", "--schema", task / "schema.json", "--csv"};
  const auto with = run(task, predict + words{task / "data.csv"});
  const auto without = run(task, predict + words{task / "new.csv", "--output", task / "out.csv"});
  REQUIRE_MESSAGE(with.status == 0, with.err);
  REQUIRE_MESSAGE(without.status == 0, without.err);
  CHECK(with.out == contents(task / "out.csv"));

  const auto columns = dpsgd::read_schema(task / "schema.json");
  const auto data = dpsgd::read_csv(task / "data.csv", columns);
  const auto expected = dpsgd::predict(dpsgd::load_model(task / "model").model, data.features());
  std::istringstream out(with.out);
  std::string line;
  std::getline(out, line);
  CHECK(line == "prediction,probability");
  double correct = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    REQUIRE(std::getline(out, line));
    CHECK(std::stof(line) == expected[i]);
    CHECK((std::stod(line.substr(2)) > 0.5) == (expected[i] == 1));
    correct += expected[i] == data.labels()[i];
  }
  CHECK(correct / static_cast<double>(expected.size()) > 0.8);

  // What cannot be.
  CHECK(run(task, {program("predict"), "--model", task / "model"}).status == 2);
  const auto no_model = run(task, {program("predict"), "--model", task / "data.csv", "--schema", task / "schema.json",
                                   "--csv", task / "data.csv"});
  CHECK(no_model.status == 1);
  CHECK(no_model.err.find("this is no dpsgd-model file") != std::string::npos);
  write(task / "narrow.json", R"({"columns": [{"name": "y", "kind": "label"}, {"name": "a", "kind": "binary"}]})");
  const auto narrow = run(task, {program("predict"), "--model", task / "model", "--schema", task / "narrow.json",
                                 "--csv", task / "data.csv"});
  CHECK(narrow.status == 1);
  CHECK(narrow.err.find("trained with another schema") != std::string::npos);
}
