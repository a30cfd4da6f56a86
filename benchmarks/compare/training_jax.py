"""The peers of training.py that are JAX: plain SGD, the best private step that a user can write by hand, JAX-Privacy.

All are jitted whole, with donated weights. A private epoch samples by Poisson and pads the batch, because XLA compiles
for one shape at a time.
"""
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import worker

CLIP, NOISE, RATE = 1.0, 1.0, 0.01


def outputs(weights, x):
    for i, (w, b) in enumerate(weights):
        x = x @ w.T + b
        if i + 1 < len(weights):
            x = jax.nn.relu(x)
    return x


def losses(weights, x, y):
    """(batch): each record's cross-entropy."""
    z = outputs(weights, x)
    if z.shape[-1] == 1:
        z = z[:, 0]
        return jax.nn.softplus(z) - y * z
    return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None].astype(jnp.int32), axis=1)[:, 0]


class Training:
    """Data and weights; a kind of training adds new_weights(weights, x, y, real, key, rate, multiplier)."""

    private = True

    def __init__(self, folder, widths, records, batch, threads, private, epoch, draws, output):
        self.batch, self.records, self.epoch, self.draws, self.output = batch, records, epoch, draws, output
        self.widths = [int(w) for w in widths.split("-")]
        load = lambda name: np.fromfile(Path(folder) / name, np.float32)
        self.host_x, self.host_y = load("features.f32").reshape(records, self.widths[0]), load("labels.f32")
        self.x, self.y = jnp.asarray(self.host_x), jnp.asarray(self.host_y)
        rows = np.fromfile(Path(folder) / f"rows-{batch}.u32", np.uint32).reshape(-1, batch)
        self.rows = [jnp.asarray(r.astype(np.int32)) for r in rows]
        self.start = load("weights.f32")
        self.key = jax.random.key(int(time.time_ns()) & 0xFFFFFFFF)
        self.random = np.random.default_rng()
        self.begin()
        self.step = jax.jit(self.new_weights, donate_argnums=0)

        def in_one(weights, data_x, data_y, rows, *rest):
            return self.new_weights(weights, data_x[rows], data_y[rows], *rest)

        one = jax.jit(in_one, donate_argnums=0)
        gather = jax.jit(lambda data_x, data_y, rows: (data_x[rows], data_y[rows]))
        two = lambda weights, data_x, data_y, rows, *rest: self.step(weights, *gather(data_x, data_y, rows), *rest)
        # A mask of real rows that is an argument lets XLA make JAX-Privacy's step several times faster than none at all.
        self.all_real = jnp.ones(batch, bool) if self.private else None
        self.forms = [one, two]  # the gather inside the jitted step or before it: repeat keeps the faster one
        self.weights = self.unflatten(self.start)

    def begin(self):
        pass

    def unflatten(self, flat):
        weights, at = [], 0
        for a, b in zip(self.widths, self.widths[1:]):
            w, at = flat[at : at + a * b].reshape(b, a), at + a * b
            bias, at = flat[at : at + b], at + b
            weights.append((jnp.array(w), jnp.array(bias)))
        return weights

    def advance(self, rows, rate, multiplier, form=0):
        if self.private:
            self.key, key = jax.random.split(self.key)
        else:
            key = self.key
        step = self.forms[form]
        self.weights = step(self.weights, self.x, self.y, rows, self.all_real, key, rate, multiplier)

    def keep_the_faster_form(self):
        def seconds(form):
            start = time.perf_counter()
            for _ in range(3):
                self.advance(self.rows[0], RATE, NOISE, form)
            jax.block_until_ready(self.weights)
            return time.perf_counter() - start

        times = [min(seconds(form) for _ in range(4)) for form in range(len(self.forms))]
        self.forms = [self.forms[times.index(min(times))]]

    def moved(self, multiplier):
        """By how much the first step moves the weights: the (noised) sum, since the learning rate is the batch."""
        self.weights = self.unflatten(self.start)
        self.advance(self.rows[0], float(self.batch), float(multiplier))
        flat = np.concatenate([np.asarray(t).ravel() for layer in self.weights for t in layer])
        self.weights = self.unflatten(self.start)
        return self.start - flat

    def check(self):
        if not self.epoch and len(self.forms) > 1:
            self.keep_the_faster_form()
        total = self.moved(0)
        total.tofile(self.output + ".sum.f32")
        if not self.private:
            return {"sum": self.output + ".sum.f32"}
        np.concatenate([self.moved(NOISE) - total for _ in range(self.draws)]).tofile(self.output + ".noise.f32")
        return {"sum": self.output + ".sum.f32", "noise": self.output + ".noise.f32"}

    def batches(self):
        """An epoch's batches, (rows, whether each row is real or None), as private training draws them: by Poisson."""
        size = self.batch + 6 * int(np.sqrt(self.batch))  # more are drawn once in 10^9 steps
        for _ in range(-(-self.records // self.batch)):
            drawn = np.flatnonzero(self.random.random(self.records) < self.batch / self.records)[:size]
            rows = np.zeros(size, np.int32)
            rows[: len(drawn)] = drawn
            yield rows, np.arange(size) < len(drawn)

    def repeat(self, n):
        start = time.perf_counter()
        for t in range(n):
            if self.epoch:
                for rows, real in self.batches():
                    self.key, key = jax.random.split(self.key)
                    x, y = self.host_x[rows], self.host_y[rows]
                    self.weights = self.step(self.weights, x, y, real, key, RATE, NOISE)
            else:
                self.advance(self.rows[t % len(self.rows)], RATE, NOISE)
        jax.block_until_ready(self.weights)
        return time.perf_counter() - start


class plain(Training):
    private = False

    def new_weights(self, weights, x, y, real, key, rate, multiplier):
        gradient = jax.grad(lambda w: jnp.mean(losses(w, x, y)))(weights)
        return jax.tree.map(lambda w, g: w - rate * g, weights, gradient)

    def batches(self):
        """As JAX's own MNIST example: a permutation, cut into batches."""
        order = self.random.permutation(self.records)
        for first in range(0, self.records, self.batch):
            yield order[first : first + self.batch], None


class by_hand(Training):
    """Norms by vmap, which XLA need not store gradients for; then one gradient of the reweighted loss."""

    def new_weights(self, weights, x, y, real, key, rate, multiplier):
        def squared_norm(x, y):
            gradient = jax.grad(lambda w: losses(w, x[None], y[None])[0])(weights)
            return sum(jnp.vdot(t, t) for t in jax.tree.leaves(gradient))

        factor = jnp.minimum(1, CLIP / jnp.sqrt(jax.vmap(squared_norm)(x, y)))
        if real is not None:
            factor = jnp.where(real, factor, 0)
        total = jax.grad(lambda w: jnp.vdot(factor, losses(w, x, y)))(weights)
        leaves, shape = jax.tree.flatten(total)
        keys = jax.random.split(key, len(leaves))
        noised = [t + multiplier * CLIP * jax.random.normal(k, t.shape) for k, t in zip(keys, leaves)]
        return jax.tree.map(lambda w, g: w - rate / self.batch * g, weights, jax.tree.unflatten(shape, noised))


class jax_privacy(Training):
    micro = None

    def begin(self):
        from jax_privacy import clipping, noise_addition

        self.clipped = clipping.clipped_grad(
            lambda w, x, y: jnp.mean(losses(w, x, y)), l2_clip_norm=CLIP, batch_argnums=(1, 2), normalize_by=self.batch,
            microbatch_size=self.micro,
        )
        self.privatizer = lambda key, multiplier: noise_addition.gaussian_privatizer(
            stddev=multiplier * self.clipped.sensitivity(), prng_key=key
        )

    def new_weights(self, weights, x, y, real, key, rate, multiplier):
        padding = {} if real is None else {"is_padding_example": ~real}
        gradient = self.clipped(weights, x, y, **padding)
        privatizer = self.privatizer(key, multiplier)
        noised, _ = privatizer.update(gradient, privatizer.init(weights))
        return jax.tree.map(lambda w, g: w - rate * g, weights, noised)

    def batches(self):
        from jax_privacy import batch_selection

        multiple = self.micro or max(32, self.batch // 8)
        steps = -(-self.records // self.batch)
        sampler = batch_selection.CyclicPoissonSampling(sampling_prob=self.batch / self.records, iterations=steps)
        for drawn in sampler.batch_iterator(self.records, rng=self.random):
            rows = batch_selection.pad_to_multiple_of(drawn, multiple)
            yield rows, rows >= 0


class jax_privacy_micro(jax_privacy):
    micro = 256


if __name__ == "__main__":
    worker.serve(globals())
