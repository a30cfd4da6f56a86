// On a real device: what the emulator runs must come out there, too. Without a device the program says so and exits with 77,
// which CTest counts as skipped.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <memory>
#include <vector>

#include "dpsgd/cuda.hpp"
#include "dpsgd/cuda/emulator.hpp"
#include "train/fixture.hpp"

using namespace dpsgd;
using emulated = cuda::basic_backend<cuda::emulator>;

namespace {

template <class Backend, class Noise>
std::vector<float> trained(Backend backend, const Noise& noise, std::uint64_t steps) {
  const auto data = test::two_classes(3000);
  mlp model({test::width, 64, 64, 1});
  trainer t{std::move(backend), flat_clip{0.5}, noise, poisson_sampling{0.2}};
  t.fit(model, data, {.steps = steps, .learning_rate = 0.5, .delta = 1e-5, .insecure_seed = 4});
  return {model.parameters().begin(), model.parameters().end()};
}
template <class Backend>
std::vector<float> noise_of(Backend backend) {
  constexpr std::size_t n = 1000;
  auto sum = backend.template make<float>(n), parameters = backend.template make<float>(n);
  auto moment = backend.template make<float>(n);
  backend.release(gaussian_noise{0.7}, {random_key::from_seed(3), domain::noise, 5, 0}, 2.0, 1.0,
                  sgd{}.rule({1, 1.0, 0}), 0, n, sum.data(), parameters.data(), std::array<float*, 1>{moment.data()});
  std::vector<float> out(n);
  backend.download(parameters.data(), n, out.data());
  backend.wait();
  return out;
}

}  // namespace

TEST_CASE("noise has the same bits on a device") { CHECK(noise_of(cuda::backend{}) == noise_of(emulated{})); }

TEST_CASE("a device takes the steps that the emulator takes") {
  const auto device = trained(cuda::backend{}, gaussian_noise{0.7}, 1),
             host = trained(emulated{}, gaussian_noise{0.7}, 1);
  CHECK(test::distance(device, host) < 1e-5);
}

int main(int argc, char** argv) {
  int devices = 0;
  if (const auto status = cudaGetDeviceCount(&devices); status != cudaSuccess || devices == 0) {
    std::printf("no CUDA device (%s): the device tests did not run\n", cudaGetErrorName(status));
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
