<?php
// Which process answered.
if ($_SERVER["REQUEST_URI"] == "/slow") {
    usleep(200000);
}
header("cache-control: no-store");
echo getmypid();
