"""From a CSV to a saved private model by JAX-Privacy: Poisson batches, clipped_grad, gaussian_privatizer, noise found by
dp-accounting."""
import json

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax_privacy import batch_selection, clipping, noise_addition

import whole_data

asked = whole_data.options()
(x, y), (test_x, test_y) = whole_data.read(asked.csv)
rate, steps = asked.batch / len(x), -(-len(x) * asked.epochs // asked.batch)
event = lambda z: dp_accounting.SelfComposedDpEvent(
    dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(z)), steps
)
noise = dp_accounting.calibrate_dp_mechanism(
    dp_accounting.pld.PLDAccountant, event, 3.0, asked.delta, dp_accounting.ExplicitBracketInterval(0.2, 20), tol=1e-3
)

random = np.random.default_rng()
widths = [x.shape[1], 64, 64, 1]
weights = [(jnp.array(random.uniform(-1, 1, (a, b)) * np.sqrt(6 / a), jnp.float32), jnp.zeros(b))
           for a, b in zip(widths, widths[1:])]


def outputs(weights, x):
    for w, b in weights[:-1]:
        x = jax.nn.relu(x @ w + b)
    return (x @ weights[-1][0] + weights[-1][1])[..., 0]


def loss(weights, x, y):
    return optax.sigmoid_binary_cross_entropy(outputs(weights, x), y).mean()


clipped = clipping.clipped_grad(loss, l2_clip_norm=1.0, batch_argnums=(1, 2), normalize_by=asked.batch, microbatch_size=256)
privatizer = noise_addition.gaussian_privatizer(
    stddev=noise * clipped.sensitivity(), prng_key=int.from_bytes(random.bytes(4), "little") >> 1
)
optimizer = optax.chain(privatizer, optax.adam(optax.cosine_decay_schedule(0.005, steps)))


@jax.jit
def step(weights, state, x, y, is_padding):
    gradient = clipped(weights, x, y, is_padding_example=is_padding)
    updates, state = optimizer.update(gradient, state, weights)
    return optax.apply_updates(weights, updates), state


state = optimizer.init(weights)
sampler = batch_selection.CyclicPoissonSampling(sampling_prob=rate, iterations=steps)
for drawn in sampler.batch_iterator(len(x), rng=random):
    rows = batch_selection.pad_to_multiple_of(drawn, 256)
    weights, state = step(weights, state, x[rows], y[rows], rows < 0)

epsilon = dp_accounting.pld.PLDAccountant().compose(event(noise)).get_epsilon(asked.delta)
accuracy = float(np.mean((np.asarray(outputs(weights, test_x)) > 0) == (test_y > 0.5)))
with open(asked.output + ".model", "wb") as out:
    np.savez(out, *(np.asarray(t) for layer in weights for t in layer), epsilon=epsilon, delta=asked.delta)
print(json.dumps({"epsilon": epsilon, "accuracy": accuracy, "tested": len(test_x)}))
