"""From a CSV to a saved private model by Opacus, as its tutorials do: make_private_with_epsilon, then the usual loop."""
import json

import torch
from torch import nn

import whole_data

asked = whole_data.options()
torch.set_num_threads(asked.threads)

from opacus import PrivacyEngine

(x, y), (test_x, test_y) = [[torch.from_numpy(t) for t in side] for side in whole_data.read(asked.csv)]
model = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=asked.batch, shuffle=True)
engine = PrivacyEngine(accountant="prv")
model, optimizer, loader = engine.make_private_with_epsilon(
    module=model, optimizer=optimizer, data_loader=loader, epochs=asked.epochs, target_epsilon=3, target_delta=asked.delta,
    max_grad_norm=1.0,
)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=asked.epochs * len(loader))
criterion = nn.BCEWithLogitsLoss()
for _ in range(asked.epochs):
    for batch_x, batch_y in loader:
        optimizer.zero_grad()
        criterion(model(batch_x)[:, 0], batch_y).backward()
        optimizer.step()
        schedule.step()
epsilon = engine.get_epsilon(asked.delta)
with torch.no_grad():
    accuracy = ((model(test_x)[:, 0] > 0) == (test_y > 0.5)).float().mean().item()
torch.save({"model": model._module.state_dict(), "epsilon": epsilon, "delta": asked.delta}, asked.output + ".model")
print(json.dumps({"epsilon": epsilon, "accuracy": accuracy, "tested": len(test_x)}))
