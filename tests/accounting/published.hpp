/// Published (rate, multiplier, steps, delta) -> epsilon figures, each with the file and line it was published in.
#pragma once

#include <cstdint>

namespace published {

struct figure {
  double q, sigma;
  std::uint64_t steps;
  double delta, epsilon;
  const char* source;
};

/// RDP accountants: upper bounds that depend on the orders tried.
inline constexpr figure rdp[] = {
    {0.001, 1.0, 30000, 1e-7, 1.4154988495444842,
     "tensorflow+privacy/tensorflow_privacy/privacy/analysis/compute_dp_sgd_privacy_test.py:43"},
    {1.024e-05, 0.1, 976563, 1e-7, 5907982.3113984,
     "tensorflow+privacy/tensorflow_privacy/privacy/analysis/compute_dp_sgd_privacy_test.py:44"},
    {1, 0.35, 2, 1e-5, 26.2880374,
     "tensorflow+privacy/tensorflow_privacy/privacy/analysis/compute_dp_sgd_privacy_test.py:87"},
    {0.01, 0.7, 120, 1e-5, 3.2392676,
     "tensorflow+privacy/tensorflow_privacy/privacy/analysis/compute_dp_sgd_privacy_test.py:88"},
    {1, 1.0, 5, 1e-6, 13.376,
     "tensorflow+privacy/tensorflow_privacy/privacy/analysis/compute_dp_sgd_privacy_test.py:199"},
};

/// PRV accountants: upper bounds; the truth is at most 0.02 below.
inline constexpr figure prv[] = {
    {0.001, 0.8, 100, 1e-6, 0.2704033640580187, "pytorch/opacus: tests/prv_accountant.py:23"},
    {0.001, 2.0, 100, 1e-6, 0.029104536948407488, "pytorch/opacus: tests/prv_accountant.py:25"},
    {0.001, 3.0, 100, 1e-6, 0.021520093439088266, "pytorch/opacus: tests/prv_accountant.py:26"},
    {0.05, 1.5, 100, 1e-6, 1.9538531356842002, "pytorch/opacus: tests/prv_accountant.py:28"},
    {0.05, 2.0, 100, 1e-6, 1.2836373796240652, "pytorch/opacus: tests/prv_accountant.py:29"},
    {0.2, 0.8, 100, 1e-6, 24.333664177922564, "pytorch/opacus: tests/prv_accountant.py:31"},
    {0.2, 1.5, 100, 1e-6, 8.49897785912163, "pytorch/opacus: tests/prv_accountant.py:32"},
    {0.2, 3.0, 100, 1e-6, 3.3812205102218442, "pytorch/opacus: tests/prv_accountant.py:34"},
    {0.001, 0.8, 1000, 1e-6, 0.4777712661845226, "pytorch/opacus: tests/prv_accountant.py:35"},
    {0.001, 2.0, 1000, 1e-6, 0.07121878253811523, "pytorch/opacus: tests/prv_accountant.py:37"},
    {0.001, 3.0, 1000, 1e-6, 0.04761593087135893, "pytorch/opacus: tests/prv_accountant.py:38"},
    {0.05, 1.5, 1000, 1e-6, 6.209969246577267, "pytorch/opacus: tests/prv_accountant.py:40"},
    {0.05, 2.0, 1000, 1e-6, 4.172799866689319, "pytorch/opacus: tests/prv_accountant.py:41"},
    {0.001, 0.8, 20000, 1e-6, 1.2960092575701616, "pytorch/opacus: tests/prv_accountant.py:43"},
    {0.001, 1.5, 20000, 1e-6, 0.4370051086548608, "pytorch/opacus: tests/prv_accountant.py:44"},
    {0.001, 3.0, 20000, 1e-6, 0.1940310306860547, "pytorch/opacus: tests/prv_accountant.py:46"},
    {0.05, 1.5, 20000, 1e-6, 38.306617914087234, "pytorch/opacus: tests/prv_accountant.py:48"},
    {0.05, 3.0, 20000, 1e-6, 13.961114699236706, "pytorch/opacus: tests/prv_accountant.py:50"},
    {0.001, 0.8, 50000, 1e-6, 2.0345148077158663, "pytorch/opacus: tests/prv_accountant.py:51"},
    {0.001, 2.0, 50000, 1e-6, 0.4913549102114013, "pytorch/opacus: tests/prv_accountant.py:53"},
    {0.001, 3.0, 50000, 1e-6, 0.309694161156544, "pytorch/opacus: tests/prv_accountant.py:54"},
    {0.05, 2.0, 50000, 1e-6, 45.23699586133069, "pytorch/opacus: tests/prv_accountant.py:57"},
    {0.05, 3.0, 50000, 1e-6, 24.942005643144476, "pytorch/opacus: tests/prv_accountant.py:58"},
    {0.04, 1.5, 2249, 1e-5, 6.777395712150674, "pytorch/opacus: tests/accountants_test.py:130"},
};

/// PLD accountants: good to 1e-3, or to the digits printed.
inline constexpr figure pld[] = {
    {1, 0.7, 2, 1e-5, 10.1224946,
     "tensorflow+privacy/tensorflow_privacy/privacy/analysis/compute_dp_sgd_privacy_test.py:90"},
    {1, 0.35, 2, 1e-5, 24.7160779,
     "tensorflow+privacy/tensorflow_privacy/privacy/analysis/compute_dp_sgd_privacy_test.py:91"},
    {0.01, 0.35, 120, 1e-5, 18.6977407,
     "tensorflow+privacy/tensorflow_privacy/privacy/analysis/compute_dp_sgd_privacy_test.py:93"},
    {1, 1.0, 5, 1e-6, 12.595,
     "tensorflow+privacy/tensorflow_privacy/privacy/analysis/compute_dp_sgd_privacy_test.py:294"},
    {0.0064, 1.0, 782, 1e-6, 1.199,
     "tensorflow+privacy/tensorflow_privacy/privacy/analysis/compute_dp_sgd_privacy_test.py:295"},
};

}  // namespace published
