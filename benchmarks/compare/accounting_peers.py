"""The accountants that accounting.py compares with ours."""
import dp_accounting
from dp_accounting import pld, rdp

import worker


class Accounting:
    """Epsilon after the steps; or with a target the least noise that keeps it."""

    def __init__(self, rate, noise, delta, steps, target=None):
        self.rate, self.noise, self.delta, self.steps, self.target = rate, noise, delta, steps, target

    def __call__(self):
        return {"value": self.calibrated() if self.target else self.epsilon()}

    def event(self, noise):
        return dp_accounting.SelfComposedDpEvent(
            dp_accounting.PoissonSampledDpEvent(self.rate, dp_accounting.GaussianDpEvent(noise)), self.steps
        )

    def epsilon(self):
        return self.accountant().compose(self.event(self.noise)).get_epsilon(self.delta)

    def calibrated(self):
        return dp_accounting.calibrate_dp_mechanism(
            self.accountant, self.event, self.target, self.delta, dp_accounting.ExplicitBracketInterval(0.2, 20), tol=1e-4
        )


class dp_pld(Accounting):
    accountant = staticmethod(pld.PLDAccountant)


class dp_rdp(Accounting):
    accountant = staticmethod(rdp.RdpAccountant)


class dp_rdp_fine(Accounting):
    @staticmethod
    def accountant():
        return rdp.RdpAccountant([1 + 0.05 * k for k in range(1, 400)] + list(range(21, 257)))


class prv(Accounting):
    def __call__(self):
        from prv_accountant.dpsgd import DPSGDAccountant, find_noise_multiplier

        if self.target:
            noise = find_noise_multiplier(self.rate, self.steps, self.target, self.delta, eps_error=1e-3 * self.target)
            return {"value": noise, "allowed": 2e-3}
        # The width is relative to epsilon, so a rough first answer finds it.
        rough = DPSGDAccountant(self.noise, self.rate, self.steps, eps_error=0.1, delta_error=self.delta / 1000)
        error = 1e-3 * rough.compute_epsilon(self.delta, self.steps)[1]
        fine = DPSGDAccountant(self.noise, self.rate, self.steps, eps_error=error, delta_error=self.delta / 1000)
        low, middle, high = fine.compute_epsilon(self.delta, self.steps)
        return {"value": high, "estimate": middle, "allowed": 2e-3}


class prv_estimate(Accounting):
    def __call__(self):
        from prv_accountant.dpsgd import DPSGDAccountant, find_noise_multiplier

        if self.target:
            return {"value": find_noise_multiplier(self.rate, self.steps, self.target, self.delta, eps_error=0.01)}
        asked = DPSGDAccountant(self.noise, self.rate, self.steps, eps_error=0.01, delta_error=self.delta / 1000)
        return {"value": asked.compute_epsilon(self.delta, self.steps)[1]}


if __name__ == "__main__":
    worker.serve(globals())
