"""timm's Mixup, from here: one import changes. python timm_mixup.py"""

import timm
import torch
from mixops.pipelines import digits
from mixops.pipelines.drop_in.timm_ import Mixup  # was: from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch.utils.data import DataLoader, TensorDataset

images, labels = digits()
x = torch.from_numpy(images[:240]).float().div(255).repeat_interleave(4, 2).repeat_interleave(4, 3)
loader = DataLoader(TensorDataset(x, torch.from_numpy(labels[:240])), batch_size=33, shuffle=True)  # odd: no matter

torch.manual_seed(0)  # the draws follow torch's seed, or seed= of their own
model = timm.create_model("test_resnet", num_classes=10, in_chans=1)
mixup_fn = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, mode="elem", label_smoothing=0.1, num_classes=10)
loss_fn, optimizer = SoftTargetCrossEntropy(), torch.optim.AdamW(model.parameters(), 1e-3)

for epoch in range(3):
    mixup_fn.mixup_enabled = epoch < 2  # timm's --mixup-off-epoch
    for x, target in loader:
        x, target = mixup_fn(x, target)
        loss = loss_fn(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch}: loss {loss.item():.3f}, own shares of the last batch {mixup_fn.plan.lam[:4]}")
