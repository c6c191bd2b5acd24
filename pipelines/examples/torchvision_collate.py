"""MixUp or CutMix of torchvision's v2, in collate_fn, with masks beside the images. python torchvision_collate.py"""

import torch
from mixops.pipelines import digits
from mixops.pipelines.drop_in.torchvision_ import BatchMix, CutMix, MixUp  # was: from torchvision.transforms.v2
from torch.utils.data import DataLoader, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

import mixops as mx

images, labels = digits()
data = [(torch.from_numpy(image), int(label)) for image, label in zip(images[:256], labels[:256], strict=True)]
choice = v2.RandomChoice([CutMix(num_classes=10), MixUp(alpha=0.2, num_classes=10)])
after = v2.Compose([choice, v2.ToDtype(torch.float32)])
loader = DataLoader(data, 64, shuffle=True, collate_fn=lambda samples: after(*default_collate(samples)))

torch.manual_seed(0)  # the draws follow torch's seed
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), 1e-2)
for epoch in range(3):
    for x, soft in loader:  # uint8 is mixed before it becomes float
        loss = torch.nn.functional.cross_entropy(model(x / 255), soft)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch}: loss {loss.item():.3f}")

# Any operator will do, and masks follow: holes get the ignore index.
transform = BatchMix(mx.CutMix(1.0) | mx.Cutout(size=2), labels_getter=None, fill=255)
batch = {"image": tv_tensors.Image(images[:8]), "mask": tv_tensors.Mask(images[:8, 0] // 128)}  # two classes
mixed = transform(batch)
print(type(mixed["mask"]).__name__, mixed["mask"].unique().tolist())
