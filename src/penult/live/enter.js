// The token has been taken; what stands behind the # goes on to the page.
location.replace(`./${location.hash}`);
