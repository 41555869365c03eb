// Asks for a cluster where there is none, and succeeds if the client says so as it should.
#include <cstdio>

#include <kvgrid/kvgrid.h>

int main() {
    auto client = kvgrid::Client::connect("127.0.0.1:1", {.timeout = std::chrono::milliseconds(200)});
    if (client) {
        std::puts("connected to a port that is closed");
        return 1;
    }
    std::puts(client.error().to_string().c_str());
    return client.error() == kvgrid::Errc::unavailable ? 0 : 1;
}
