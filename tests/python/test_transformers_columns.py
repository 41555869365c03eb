"""Which columns of a padded batch are tokens: against the mask itself, over random masks that grow, are cut and are reordered."""

import torch

from kvgrid.transformers.columns import Columns


def test_random_histories(random):
    for _ in range(50):
        rows = int(random.integers(1, 5))
        columns, mask = Columns(), torch.ones(rows, 0, dtype=torch.bool)
        for _ in range(8):
            new = int(random.integers(1, 6))
            fresh = torch.from_numpy(random.random((rows, new)) < random.choice([0.5, 1.0]))
            mask = torch.cat([mask, fresh], dim=1)
            found = columns.new_ones(None if mask.all() else mask, rows, new)
            assert found is None if fresh.all() else torch.equal(found, fresh)
            columns.append(found, rows, new)
            if random.random() < 0.3:
                order = random.integers(0, rows, rows).tolist()
                columns.select(order)
                mask = mask[order]
            if random.random() < 0.3:
                count = int(random.integers(0, columns.count + 1))
                columns.cut(count)
                mask = mask[:, :count]
            assert columns.count == mask.shape[1]
            assert [columns.tokens_within(columns.count, row) for row in range(rows)] == mask.sum(dim=1).tolist()
