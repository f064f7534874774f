// SPDX-License-Identifier: Apache-2.0
// A client for tests, as a process of its own: reads a stream and says what it read, one line a batch.
//
//   integration_reader address=PATH dataset=NAME [option=value]...
//
//   batch=N seed=N (shuffles) epochs=N prefetch=N transport=auto|shm|inline reconnect=SECONDS
//   delay_ms=N      sleeps after each batch, holding it
//   hold=N          keeps the first N batches, says "holding", waits for a line on standard input, and says "intact"
//   when
//                   their bytes are what they were; then goes on, holding them still
// Output: "open STEPS", "batch EPOCH:STEP DIGEST" each, "done TRANSPORT"; on an error "error CODE: MESSAGE" and exit 1.
#include <cstdio>
#include <iostream>
#include <string>

#include "absl/time/clock.h"
#include "stoker/client.h"
#include "tests/integration/arguments.h"
#include "tests/integration/digest.h"

namespace stoker {
namespace {

using testing::Arguments;
using testing::Number;

LoaderOptions Options(const Arguments& arguments) {
  LoaderOptions options;
  options.dataset = arguments.at("dataset");
  options.plan.set_batch_size(static_cast<uint32_t>(Number(arguments, "batch", 8)));
  options.plan.set_shuffle(arguments.count("seed") > 0);
  options.plan.set_seed(static_cast<uint64_t>(Number(arguments, "seed", 0)));
  options.epochs = static_cast<uint64_t>(Number(arguments, "epochs", 1));
  options.prefetch = Number(arguments, "prefetch", LoaderOptions::kAutomaticPrefetch);
  options.reconnect_timeout = absl::Seconds(Number(arguments, "reconnect", 30));
  const auto transport = arguments.find("transport");
  if (transport != arguments.end() && transport->second == "shm") options.transport = Transport::kShm;
  if (transport != arguments.end() && transport->second == "inline") options.transport = Transport::kInline;
  return options;
}

// False when a held batch is not what it was.
bool WaitHolding(const std::vector<std::pair<Batch, uint32_t>>& held) {
  std::cout << "holding" << std::endl;
  std::string line;
  std::getline(std::cin, line);
  for (const auto& [batch, digest] : held) {
    if (testing::DigestOf(batch) != digest) return false;
  }
  std::cout << "intact" << std::endl;
  return true;
}

absl::Status ReadAll(const Arguments& arguments) {
  const absl::StatusOr<Client> client = Client::Connect({.address = arguments.at("address")});
  if (!client.ok()) return client.status();
  const LoaderOptions options = Options(arguments);
  absl::StatusOr<Loader> loader = client->Open(options);
  if (!loader.ok()) return loader.status();
  std::cout << "open " << loader->steps_per_epoch() << std::endl;
  const auto hold = static_cast<size_t>(Number(arguments, "hold", 0));
  std::vector<std::pair<Batch, uint32_t>> held;
  while (loader->position().epoch() < options.epochs) {
    absl::StatusOr<std::optional<Batch>> batch = loader->Next(absl::Seconds(60));
    if (!batch.ok()) return batch.status();
    if (!batch->has_value()) continue;
    const uint32_t digest = testing::DigestOf(**batch);
    std::printf("batch %d:%d %08x\n", static_cast<int>((*batch)->epoch()), static_cast<int>((*batch)->step()), digest);
    std::fflush(stdout);
    if (held.size() < hold) {
      held.emplace_back(**batch, digest);
      if (held.size() == hold && !WaitHolding(held)) return absl::DataLossError("a batch changed while it was held");
    }
    absl::SleepFor(absl::Milliseconds(Number(arguments, "delay_ms", 0)));
  }
  std::cout << "done " << loader->transport() << std::endl;
  return absl::OkStatus();
}

}  // namespace
}  // namespace stoker

int main(int argc, char** argv) {
  const absl::Status status = stoker::ReadAll(stoker::testing::ParseArguments(argc, argv));
  if (status.ok()) return 0;
  std::cout << "error " << absl::StatusCodeToString(status.code()) << ": " << status.message() << std::endl;
  return 1;
}
