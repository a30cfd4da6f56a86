/// Fails in the way that its argument says; for ends.cpp.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <iostream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "dpsgd/allreduce/all.hpp"
#include "dpsgd/mpi.hpp"

namespace {

std::atomic<bool> stop{false};

void sleep_for(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

void work_for_ever(dpsgd::mpi::world& world, const std::string& allreduce, bool falls_asleep = false) {
  std::vector<float> v(5000, 1.0f);
  auto all = dpsgd::bind<float>(dpsgd::allreduce::from_name(allreduce), world, v.size());
  if (falls_asleep) sleep_for(600);
  for (;;) all.all_reduce(v.data());
}

// In the middle of an allreduce whose vectors are read in place, the culprit gets the signal.
void struck(dpsgd::mpi::world& world, bool culprit, int signal) {
  world.deadline(0.5);
  const auto v = dpsgd::make_buffer<float>(world, 100'000);
  auto all = dpsgd::bind<float>(dpsgd::allreduce::ring{}, world, v.size());
  std::jthread fate;
  if (culprit)
    fate = std::jthread([signal] {
      sleep_for(0.2);
      ::kill(::getpid(), signal);
    });
  for (;;) all.all_reduce(v.data());
}

void run(const std::string& how, dpsgd::mpi::world& world) {
  const bool culprit = world.rank() == 1;
  if (how == "throw" || how == "caught-outside") {
    if (culprit) throw std::runtime_error("no such column");
    work_for_ever(world, "circulant");
  }
  if (how == "caught-inside") {
    try {
      if (culprit) throw std::runtime_error("no such column");
      work_for_ever(world, "ring");
    } catch (const std::exception& e) {
      std::cerr << "caught: " << e.what() << '\n';
      world.abort(4);
    }
  }
  if (how == "sleep" || how == "sleep-native") {
    world.deadline(0.5);
    work_for_ever(world, how == "sleep" ? "naive" : "native", culprit);
  }
  if (how == "stop") {
    world.stop_flag(&stop);
    stop = true;
    try {
      if (culprit) sleep_for(600);
      work_for_ever(world, "ring");
    } catch (const dpsgd::interrupted& e) {
      std::cerr << e.what() << '\n';
      std::exit(3);
    }
  }
  if (how == "stopped-in-place") struck(world, culprit, SIGSTOP);
  if (how == "killed-in-place") struck(world, culprit, SIGKILL);
  if (how == "sizes-in-place") {
    const auto v = dpsgd::make_buffer<char>(world, 100'000);
    const dpsgd::outgoing letter{0, v.data(), 100'000};
    const dpsgd::incoming expected{1, v.data(), 50'000};
    if (culprit) world.exchange({&letter, 1}, {});
    if (world.rank() == 0) world.exchange({}, {&expected, 1});
    if (world.rank() > 0) work_for_ever(world, "ring");
  }
  if (how == "sizes") {
    std::vector<char> v(8);
    const dpsgd::outgoing letter{0, v.data(), 4};
    const dpsgd::incoming expected{1, v.data(), 8};
    if (culprit) world.exchange({&letter, 1}, {});
    if (world.rank() == 0) world.exchange({}, {&expected, 1});
    if (world.rank() > 0) work_for_ever(world, "ring");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string how = argc > 1 ? argv[1] : "";
  if (how == "caught-outside" || how == "sleep-native") {
    try {
      dpsgd::mpi::world world(argc, argv);
      run(how, world);
    } catch (const std::exception& e) {
      std::cerr << "caught: " << e.what() << '\n';
      return 5;
    }
  }
  dpsgd::mpi::world world(argc, argv);
  run(how, world);
  std::cout << "done\n";
}
