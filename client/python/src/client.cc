// SPDX-License-Identifier: Apache-2.0
#include "stoker/client.h"

#include <nanobind/stl/string.h>

#include "client/python/src/bindings.h"
#include "client/python/src/loader.h"

namespace stoker::python {
namespace {

using PyClient = OfThisProcess<Client>;

PyClient Connect(std::string address, double timeout) {
  return PyClient(Value(Interruptible<absl::StatusOr<Client>>([address = std::move(address), timeout] {
    return Client::Connect({.address = address, .timeout = absl::Seconds(timeout)});
  })));
}

bool Health(const PyClient& client, std::string service) {
  return Value(Interruptible<absl::StatusOr<bool>>(
      [client = client.get(), service = std::move(service)] { return client.Health(service); }));
}

nb::str Status(const PyClient& client) {
  return Text(ToJson(
      Value(Interruptible<absl::StatusOr<v1::StatusReply>>([client = client.get()] { return client.GetStatus(); }))));
}

nb::str Datasets(const PyClient& client, std::string name) {
  v1::ListDatasetsReply reply;
  using Result = absl::StatusOr<std::vector<v1::DatasetInfo>>;
  const std::vector<v1::DatasetInfo> datasets =
      Value(Interruptible<Result>([client = client.get(), name = std::move(name)] { return client.Datasets(name); }));
  reply.mutable_datasets()->Assign(datasets.begin(), datasets.end());
  return Text(ToJson(reply));
}

bool Drop(const PyClient& client, std::string name) {
  using Result = absl::StatusOr<v1::DropDatasetReply>;
  return Value(Interruptible<Result>([client = client.get(), name = std::move(name)] { return client.Drop(name); }))
      .store_removed();
}

// The last progress that the daemon told of, on its way to the thread with the GIL.
class ProgressBox {
 public:
  void Put(const v1::IngestEvent::Progress& progress) {
    absl::MutexLock lock(&mu_);
    progress_ = progress;
  }
  std::optional<v1::IngestEvent::Progress> Take() {
    absl::MutexLock lock(&mu_);
    return std::exchange(progress_, std::nullopt);
  }

 private:
  absl::Mutex mu_;
  std::optional<v1::IngestEvent::Progress> progress_ ABSL_GUARDED_BY(mu_);
};

nb::str Ingest(const PyClient& client, const std::string& request_json, nb::object progress) {
  v1::IngestRequest request;
  FromJson(request_json, &request);
  const auto box = std::make_shared<ProgressBox>();
  const auto cancellation = std::make_shared<Cancellation>();
  const auto work = [client = client.get(), request, box, cancellation] {
    return client.Ingest(
        request, [box](const v1::IngestEvent::Progress& last) { box->Put(last); }, cancellation.get());
  };
  const auto poll = [&box, &progress] {
    const std::optional<v1::IngestEvent::Progress> last = box->Take();
    if (last.has_value() && !progress.is_none()) progress(Text(ToJson(*last)));
  };
  return Text(ToJson(Value(Interruptible<absl::StatusOr<v1::IngestEvent::Done>>(
      work, [&cancellation] { cancellation->Cancel(); }, poll))));
}

absl::StatusOr<Transport> ParseTransport(const std::string& name) {
  if (name == "auto") return Transport::kAuto;
  if (name == "shm") return Transport::kShm;
  if (name == "inline") return Transport::kInline;
  return absl::InvalidArgumentError("transport \"" + name + "\": there are auto, shm and inline");
}

PyLoader Open(const PyClient& client, std::string dataset, const std::string& recipe, const std::string& plan,
              uint64_t epoch, uint64_t step, int prefetch, const std::string& transport, double open_timeout,
              double reconnect_timeout) {
  LoaderOptions options;
  options.dataset = std::move(dataset);
  FromJson(recipe, &options.recipe);
  FromJson(plan, &options.plan);
  options.start.set_epoch(epoch);
  options.start.set_step(step);
  options.prefetch = prefetch;
  options.transport = Value(ParseTransport(transport));
  options.open_timeout = absl::Seconds(open_timeout);
  options.reconnect_timeout = absl::Seconds(reconnect_timeout);
  using Result = absl::StatusOr<std::shared_ptr<Loader>>;
  return PyLoader(Value(Interruptible<Result>([client = client.get(), options]() -> Result {
    absl::StatusOr<Loader> loader = client.Open(options);
    if (!loader.ok()) return loader.status();
    return std::make_shared<Loader>(*std::move(loader));
  })));
}

}  // namespace

void BindClient(nb::module_& module) {
  nb::class_<PyClient>(module, "Client")
      .def_prop_ro("address", [](const PyClient& client) { return Text(client.get().address()); })
      .def("health", Health)
      .def("status", Status)
      .def("datasets", Datasets)
      .def("drop", Drop)
      .def("ingest", Ingest, nb::arg("request"), nb::arg("progress").none())
      .def("open", Open);
  module.def("connect", Connect);
}

}  // namespace stoker::python
