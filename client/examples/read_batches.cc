// SPDX-License-Identifier: Apache-2.0
// Reads two epochs of a data set, as a training program would:  read_batches DATASET [SOCKET]
#include <iostream>
#include <optional>

#include "stoker/client.h"

namespace {

absl::Status Train(const std::string& dataset, const std::string& socket) {
  absl::StatusOr<stoker::Client> client = stoker::Client::Connect({.address = socket});
  if (!client.ok()) return client.status();

  stoker::LoaderOptions options;
  options.dataset = dataset;
  options.recipe.mutable_gaf()->set_dtype(stoker::v1::DTYPE_U8);
  options.plan.set_batch_size(16);
  options.plan.set_shuffle(true);
  options.plan.set_seed(7);
  options.epochs = 2;
  absl::StatusOr<stoker::Loader> loader = client->Open(options);
  if (!loader.ok()) return loader.status();

  for (uint64_t epoch = 0; epoch < options.epochs; ++epoch) {
    double sum = 0;
    while (true) {
      absl::StatusOr<std::optional<stoker::Batch>> batch = loader->Next();
      if (!batch.ok()) return batch.status();
      if (!batch->has_value()) break;  // the end of the epoch

      // The images, where the workers wrote them: no copy. The view holds the batch until it is gone.
      absl::StatusOr<stoker::TensorView<uint8_t>> gasf = (*batch)->Get<uint8_t>("gasf");  // [B, C, S, S]
      if (!gasf.ok()) return gasf.status();
      for (const uint8_t pixel : gasf->data()) sum += pixel;
    }
    std::cout << "epoch " << epoch << ": " << loader->steps_per_epoch() << " batches, sum " << sum << "\n";
    std::cout << "go on later with " << loader->SaveState() << "\n";  // and Loader::LoadState
  }
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  const absl::Status status = Train(argc > 1 ? argv[1] : "pacific", argc > 2 ? argv[2] : "");
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
