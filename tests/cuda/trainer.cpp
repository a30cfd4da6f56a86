// Training on emulated devices: every kernel that a GPU would run, against the CPU backend.
#include "dpsgd/train/trainer.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "dpsgd/cpu/backend.hpp"
#include "dpsgd/cuda/backend.hpp"
#include "dpsgd/cuda/emulator.hpp"
#include "dpsgd/nn/mlp.hpp"
#include "train/fixture.hpp"

using namespace dpsgd;
using emulated = cuda::basic_backend<cuda::emulator>;

TEST_CASE("a device and the CPU take the same steps") {
  const auto data = test::two_classes(300);
  const auto train = [&](auto backend) {
    mlp model({test::width, 8, 8, 1});
    trainer t{std::move(backend), flat_clip{0.5}, gaussian_noise{0.7}, poisson_sampling{0.2}};
    t.fit(model, data, {.steps = 5, .learning_rate = 0.5, .delta = 1e-5, .insecure_seed = 4});
    return std::vector<float>(model.parameters().begin(), model.parameters().end());
  };
  const auto cpu = train(cpu::backend{}), one = train(emulated(std::make_shared<cuda::emulator>(1))),
             two = train(emulated(std::make_shared<cuda::emulator>(2)));
  CHECK(one == two);
  CHECK(test::distance(one, cpu) < 1e-5);
}
