"""The peers of training.py that are PyTorch: plain SGD, Opacus, and the original project's way."""
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import worker

CLIP, NOISE, RATE = 1.0, 1.0, 0.01


class Training:
    """The data, the network and its loss; a kind of training adds gradient_step(x, y)."""

    private = True

    def __init__(self, folder, widths, records, batch, threads, private, epoch, draws, output):
        torch.set_num_threads(threads)
        self.batch, self.records, self.epoch, self.draws, self.output = batch, records, epoch, draws, output
        widths = [int(w) for w in widths.split("-")]
        load = lambda name, kind: torch.from_numpy(np.fromfile(Path(folder) / name, kind))
        self.x = load("features.f32", np.float32).reshape(records, widths[0])
        self.y = load("labels.f32", np.float32)
        if widths[-1] == 1:
            self.criterion = nn.BCEWithLogitsLoss()
        else:
            self.y, self.criterion = self.y.long(), nn.CrossEntropyLoss()
        rows = np.fromfile(Path(folder) / f"rows-{batch}.u32", np.uint32).reshape(-1, batch)
        self.rows = [torch.from_numpy(r.astype(np.int64)) for r in rows]
        self.start = load("weights.f32", np.float32)
        layers = []
        for a, b in zip(widths, widths[1:]):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1])
        nn.utils.vector_to_parameters(self.start.clone(), self.model.parameters())
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
        self.loader = DataLoader(TensorDataset(self.x, self.y), batch_size=batch, shuffle=True)
        self.optimizer.noise_multiplier = NOISE
        self.begin()

    def begin(self):
        pass

    def loss(self, x, y):
        # One loss a record: with a column of them (batch, 1), Opacus's ghost clipping silently multiplies every record's
        # loss by every record's factor.
        z = self.model(x)
        return self.criterion(z[:, 0] if z.shape[1] == 1 else z, y)

    def set(self, rate, multiplier):
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.noise_multiplier = multiplier

    def moved(self, multiplier):
        """By how much the first step moves the weights: the (noised) sum, since the learning rate is the batch."""
        nn.utils.vector_to_parameters(self.start.clone(), self.model.parameters())
        self.set(self.batch, multiplier)
        self.gradient_step(self.x[self.rows[0]], self.y[self.rows[0]])
        self.set(RATE, NOISE)
        return self.start.numpy() - nn.utils.parameters_to_vector(self.model.parameters()).detach().numpy()

    def check(self):
        total = self.moved(0)
        total.tofile(self.output + ".sum.f32")
        if not self.private:
            return {"sum": self.output + ".sum.f32"}
        np.concatenate([self.moved(NOISE) - total for _ in range(self.draws)]).tofile(self.output + ".noise.f32")
        nn.utils.vector_to_parameters(self.start.clone(), self.model.parameters())
        return {"sum": self.output + ".sum.f32", "noise": self.output + ".noise.f32"}

    def repeat(self, n):
        start = time.perf_counter()
        if not self.epoch:
            for t in range(n):
                rows = self.rows[t % len(self.rows)]
                self.gradient_step(self.x[rows], self.y[rows])
            return time.perf_counter() - start
        for _ in range(n):
            for x, y in self.loader:
                self.gradient_step(x, y)
        return time.perf_counter() - start


class plain(Training):
    private = False

    def gradient_step(self, x, y):
        self.optimizer.zero_grad()
        self.loss(x, y).backward()
        self.optimizer.step()


class compiled(plain):
    def begin(self):
        self.loss = torch.compile(self.loss)


class hooks(Training):
    """As the tutorial: make_private, then the ordinary loop; its loader samples by Poisson."""

    mode = {}

    def begin(self):
        from opacus import PrivacyEngine

        made = PrivacyEngine(accountant="rdp").make_private(
            module=self.model, optimizer=self.optimizer, data_loader=self.loader, noise_multiplier=NOISE,
            max_grad_norm=CLIP, criterion=self.criterion, **self.mode,
        )
        self.model, self.optimizer, self.loader = made[0], made[1], made[-1]
        if len(made) == 4:
            self.criterion = made[2]

    def gradient_step(self, x, y):
        self.optimizer.zero_grad()
        self.loss(x, y).backward()
        self.optimizer.step()


class ghost(hooks):
    mode = {"grad_sample_mode": "ghost"}


class original(Training):
    """The original project's way: a backward pass and a clip for each micro-batch of 3, whose mean gradient is clipped."""

    micro = 3

    def begin(self):
        self.parameters = list(self.model.parameters())

    def check(self):
        self.micro = 1
        answer = super().check()
        self.micro = 3
        return answer

    def gradient_step(self, x, y):
        total = [torch.zeros_like(p) for p in self.parameters]
        for first in range(0, len(x), self.micro):
            self.optimizer.zero_grad()
            self.loss(x[first : first + self.micro], y[first : first + self.micro]).backward()
            nn.utils.clip_grad_norm_(self.parameters, CLIP)
            for t, p in zip(total, self.parameters):
                t += p.grad
        groups = self.batch / self.micro
        for t, p in zip(total, self.parameters):
            p.grad = (t + torch.randn_like(t) * (self.optimizer.noise_multiplier * CLIP)) / groups
        self.optimizer.step()


if __name__ == "__main__":
    worker.serve(globals())
