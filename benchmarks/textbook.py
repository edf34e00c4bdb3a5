"""The textbook's program, plainly as its text has it, as one process: the yardstick of `linreg train`.

    python benchmarks/textbook.py FOLDER [EPOCHS]

trains for 200 epochs, or as many as given, and writes to FOLDER what `linreg train
configs/simple_linear_regression.yaml` writes for people: both losses and the model's graph for TensorBoard, a
checkpoint, and a picture of the losses.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset, random_split
from torch.utils.tensorboard import SummaryWriter

plt.style.use("fivethirtyeight")


def make_train_step_fn(model, loss_fn, optimizer):
    """Build the function that performs a step in the train loop."""

    def perform_train_step_fn(x, y):
        # Sets model to TRAIN mode
        model.train()

        # Step 1 - Computes our model's predicted output - forward pass
        yhat = model(x)
        # Step 2 - Computes the loss
        loss = loss_fn(yhat, y)
        # Step 3 - Computes gradients for both "a" and "b" parameters
        loss.backward()
        # Step 4 - Updates parameters using gradients and the learning rate
        optimizer.step()
        optimizer.zero_grad()

        # Returns the loss
        return loss.item()

    return perform_train_step_fn


def make_val_step_fn(model, loss_fn):
    """Build the function that performs a step in the validation loop."""

    def perform_val_step_fn(x, y):
        # Sets model to EVAL mode
        model.eval()

        # Step 1 - Computes our model's predicted output - forward pass
        yhat = model(x)
        # Step 2 - Computes the loss
        loss = loss_fn(yhat, y)
        # There is no need to compute Steps 3 and 4, since we don't update parameters during evaluation
        return loss.item()

    return perform_val_step_fn


def mini_batch(device, data_loader, step_fn):
    """Run the inner loop: a step for each mini-batch, and the mean of their losses."""
    mini_batch_losses = []
    for x_batch, y_batch in data_loader:
        x_batch = x_batch.to(device)  # noqa: PLW2901  # as the text has it
        y_batch = y_batch.to(device)  # noqa: PLW2901  # likewise

        mini_batch_loss = step_fn(x_batch, y_batch)
        mini_batch_losses.append(mini_batch_loss)

    return np.mean(mini_batch_losses)


def plot_losses(losses, val_losses):
    """Plot both losses, on a log scale."""
    fig = plt.figure(figsize=(10, 4))
    plt.plot(losses, label="Training Loss", c="b")
    plt.plot(val_losses, label="Validation Loss", c="r")
    plt.yscale("log")
    plt.xlabel("Epochs")
    plt.ylabel("Loss")
    plt.legend()
    plt.tight_layout()
    return fig


def main(folder, n_epochs=200):
    """Run the program; all that it writes goes to the folder."""
    # Data generation
    true_b = 1
    true_w = 2
    n = 100
    np.random.seed(42)
    x = np.random.rand(n, 1)
    epsilon = 0.1 * np.random.randn(n, 1)
    y = true_b + true_w * x + epsilon

    torch.manual_seed(13)

    # Builds tensors from numpy arrays BEFORE split
    x_tensor = torch.from_numpy(x).float()
    y_tensor = torch.from_numpy(y).float()

    # Builds dataset containing ALL data points
    dataset = TensorDataset(x_tensor, y_tensor)

    # Performs the split
    ratio = 0.8
    n_total = len(dataset)
    n_train = int(n_total * ratio)
    n_val = n_total - n_train
    train_data, val_data = random_split(dataset, [n_train, n_val])

    # Builds a loader of each set
    train_loader = DataLoader(dataset=train_data, batch_size=16, shuffle=True)
    val_loader = DataLoader(dataset=val_data, batch_size=16)

    device = "cuda" if torch.cuda.is_available() else "cpu"

    # Sets learning rate - this is "eta" ~ the "n" like Greek letter
    lr = 0.1

    torch.manual_seed(42)
    # Now we can create a model and send it at once to the device
    model = nn.Sequential(nn.Linear(1, 1)).to(device)

    # Defines a SGD optimizer to update the parameters (now retrieved directly from the model)
    optimizer = optim.SGD(model.parameters(), lr=lr)

    # Defines a MSE loss function
    loss_fn = nn.MSELoss(reduction="mean")

    # Creates the train_step function for our model, loss function and optimizer
    train_step_fn = make_train_step_fn(model, loss_fn, optimizer)

    # Creates the val_step function for our model and loss function
    val_step_fn = make_val_step_fn(model, loss_fn)

    # Creates a Summary Writer to interface with TensorBoard
    writer = SummaryWriter(folder / "runs" / "simple_linear_regression")

    # Fetches a single mini-batch so we can use add_graph
    x_sample, _ = next(iter(train_loader))
    writer.add_graph(model, x_sample.to(device))

    losses = []
    val_losses = []

    for epoch in range(n_epochs):
        # inner loop
        loss = mini_batch(device, train_loader, train_step_fn)
        losses.append(loss)

        # VALIDATION
        # no gradients in validation!
        with torch.no_grad():
            val_loss = mini_batch(device, val_loader, val_step_fn)
            val_losses.append(val_loss)

        # Records both losses for each epoch under the main tag "loss"
        writer.add_scalars(
            main_tag="loss", tag_scalar_dict={"training": loss, "validation": val_loss}, global_step=epoch
        )

    # Closes the writer
    writer.close()

    checkpoint = {
        "epoch": n_epochs,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "loss": losses,
        "val_loss": val_losses,
    }
    torch.save(checkpoint, folder / "model_checkpoint.pth")

    fig = plot_losses(losses, val_losses)
    fig.savefig(folder / "losses.png")

    print(model.state_dict())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
