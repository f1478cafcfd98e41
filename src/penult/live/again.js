// While a run is read: the page asks again, with its address as it stands.
setTimeout(() => location.reload(), 1000);
