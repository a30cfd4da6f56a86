"""The peers of accuracy.py. Each trains once and says how often it is right on the test rows, and what it did:
its sampling rate, noise multiplier and steps."""
import numpy as np

import worker


def read(file, rows, columns):
    floats = np.fromfile(file, np.float32)
    return floats[: rows * columns].reshape(rows, columns), floats[rows * columns :]


class peer:
    def __init__(self, train_floats, test_floats, train_rows, test_rows, columns, batch, epochs, learning_rate, noise, **told):
        self.x, self.y = read(train_floats, train_rows, columns)
        self.test_x, self.test_y = read(test_floats, test_rows, columns)
        self.batch, self.epochs, self.learning_rate, self.noise = batch, epochs, learning_rate, noise
        self.seed = told["seed"]


class opacus(peer):
    """examples/adult_income.py of Opacus, with the engine's interface of today."""

    def __call__(self):
        import torch
        from opacus import PrivacyEngine
        from torch import nn

        torch.manual_seed(self.seed)
        model = nn.Sequential(nn.Linear(self.x.shape[1], 32), nn.ReLU(), nn.Linear(32, 2))
        data = torch.utils.data.TensorDataset(torch.from_numpy(self.x), torch.from_numpy(self.y).long())
        engine = PrivacyEngine()
        model, optimizer, loader = engine.make_private(
            module=model, optimizer=torch.optim.SGD(model.parameters(), lr=self.learning_rate),
            data_loader=torch.utils.data.DataLoader(data, batch_size=self.batch, shuffle=True),
            noise_multiplier=self.noise, max_grad_norm=1.0,
        )
        criterion = nn.CrossEntropyLoss()
        for _ in range(self.epochs):
            for x, y in loader:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
        with torch.no_grad():
            right = (model(torch.from_numpy(self.test_x)).argmax(1).numpy() == self.test_y).mean()
        ((noise, rate, steps),) = engine.accountant.history  # what it did, as it says itself
        return {"accuracy": float(right), "rate": rate, "noise": noise, "steps": steps}


class logistic(peer):
    """Gradient descent on all records, from zero: an epoch is a step."""

    def __call__(self):
        random = np.random.default_rng()
        add_one = lambda x: np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1).astype(np.float64)
        x, w = add_one(self.x), np.zeros(self.x.shape[1] + 1)
        norms = np.linalg.norm(x, axis=1)
        for _ in range(self.epochs):
            slope = 1 / (1 + np.exp(-x @ w)) - self.y
            slope /= np.maximum(1, np.abs(slope) * norms)  # a record's gradient is slope x: clipped to norm 1
            noised = slope @ x + random.normal(0, self.noise, len(w))
            w -= self.learning_rate * noised / len(x)
        right = ((add_one(self.test_x) @ w > 0) == (self.test_y > 0.5)).mean()
        return {"accuracy": float(right), "rate": 1, "noise": self.noise, "steps": self.epochs}


if __name__ == "__main__":
    worker.serve(globals())
