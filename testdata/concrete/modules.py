"""The torch modules of `cases.py`, and how they are trained."""

import numpy
import torch
from torch import nn


class Perceptron(nn.Module):
    """Two layers for the flowers."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 6)
        self.output = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a score for each class."""
        return self.output(torch.relu(self.hidden(x)))


class Convolutions(nn.Module):
    """Two convolutions and a layer for handwritten digits of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, stride=2)
        self.second = nn.Conv2d(2, 4, 2)
        self.output = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a score for each digit."""
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x))
        return self.output(torch.flatten(x, 1))


EPOCHS = 300


def train(module: nn.Module, features: numpy.ndarray, classes: numpy.ndarray) -> None:
    """Teach a module to tell classes, on the whole set at once."""
    inputs = torch.tensor(features, dtype=torch.float32)
    targets = torch.tensor(classes)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    module.train()
    for _ in range(EPOCHS):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(inputs), targets).backward()
        optimiser.step()
    module.eval()
