/// Prints and checks the digests of noise and of sampled rows: they are part of the library's contract, whatever the
/// compiler, its options and the target. The digests were read off a build without optimisation and without fma
/// instructions.
#include <cstdint>
#include <cstdio>
#include <vector>

#include "dpsgd/core/discrete_gaussian.hpp"
#include "dpsgd/core/normal.hpp"
#include "dpsgd/privacy/correlated_noise.hpp"
#include "dpsgd/privacy/sampling.hpp"

namespace {

constexpr std::uint64_t noise_digest = 0xc5d5256ae51d3381u, sampling_digest = 0xe6233c8cf6f1a67eu;
constexpr std::uint64_t discrete_digest = 0x153cca78cf15dfacu, exact_digest = 0x953db286273104bdu;
constexpr std::uint64_t correlated_digest = 0x1d75797e32d7c0adu;

std::uint64_t absorb(std::uint64_t digest, std::uint32_t word) { return (digest ^ word) * 1099511628211u; }

struct all_records {
  std::uint64_t n;
  std::uint64_t universe() const { return n; }
  std::size_t records() const { return n; }
  std::uint64_t position(std::size_t i) const { return i; }
  std::int64_t locate(std::uint64_t p) const { return static_cast<std::int64_t>(p); }
};

}  // namespace

int main() {
#if defined(__AVX2__)
  if (!__builtin_cpu_supports("avx2")) return 77;  // skipped: not a machine for this build
#endif
  using namespace dpsgd;
  std::uint64_t noise = 14695981039346656037u, sampling = noise, discrete = noise, exact = noise;
  std::uint64_t correlated = noise;
  std::vector<float> values(normal_block_size);
  for (std::uint32_t block = 0; block < 500; ++block) {
    normal_block({random_key::from_seed(1), domain::noise, 3, 0}, block, values.data());
    for (const float v : values) noise = absorb(noise, std::bit_cast<std::uint32_t>(v));
  }
  for (std::uint64_t step = 0; step < 64; ++step)
    for (std::uint32_t block = 0; block < 5; ++block) {
      const random_stream words{random_key::from_seed(1), domain::noise, step, 0};
      banded_noise{1.3, 40}.draw(words, block, 0.7, values.data());
      for (const float v : values) correlated = absorb(correlated, std::bit_cast<std::uint32_t>(v));
      tree_noise{1.3}.draw(words, block, 0.7, values.data());
      for (const float v : values) correlated = absorb(correlated, std::bit_cast<std::uint32_t>(v));
    }
  std::vector<std::uint32_t> rows;
  for (const double rate : {1e-5, 0.0003, 0.02, 0.4, 1.0})
    for (std::uint64_t step = 0; step < 20; ++step) {
      poisson_sampling{rate}.draw({random_key::from_seed(2), domain::sampling, step, 0}, all_records{50'000}, rows);
      for (const auto row : rows) sampling = absorb(sampling, row);
    }
  for (const std::uint64_t sigma : {std::uint64_t{1}, std::uint64_t{943'719}, std::uint64_t{1} << 40})
    for (std::uint32_t block = 0; block < 200; ++block) {
      std::int64_t whole[discrete_gaussian_block_size];
      discrete_gaussian_block({random_key::from_seed(1), domain::noise, 3, 0}, block, sigma, whole);
      for (const auto v : whole)
        discrete = absorb(absorb(discrete, static_cast<std::uint32_t>(v)), static_cast<std::uint32_t>(v >> 32));
    }
  for (const double rate : {1e-5, 0.0003, 0.02, 0.4, 1.0})
    for (std::uint64_t step = 0; step < 4; ++step) {
      exact_poisson_sampling{rate}.draw({random_key::from_seed(2), domain::sampling, step, 0}, all_records{50'000},
                                        rows);
      for (const auto row : rows) exact = absorb(exact, row);
    }
  const auto show = [](const char* name, std::uint64_t digest) {
    std::printf("%s 0x%016llx\n", name, static_cast<unsigned long long>(digest));
  };
  show("noise", noise), show("sampling", sampling), show("discrete noise", discrete), show("exact sampling", exact);
  show("correlated noise", correlated);
  const bool same = noise == noise_digest && sampling == sampling_digest;
  return same && correlated == correlated_digest && discrete == discrete_digest && exact == exact_digest ? 0 : 1;
}
